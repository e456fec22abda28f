"""Builds plug-ins: their options are checked like the keys of a config, by the constructor."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from derain.errors import ConfigError, DerainError
from derain.plugins.resolve import resolve

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def build_plugin(name: str, options: Mapping[str, Any], *, what: str, key: str) -> Any:
    """An object of the class `module:Name` with these options; `key` is that of the config.

    Raises ConfigError if the class cannot be imported, does not take the options, or fails.
    """
    found = resolve_plugin(name, what)
    check_options(name, found, options, key)
    return constructed(name, found, options, what=what)


def resolve_plugin(name: str, what: str) -> Any:
    """The class `module:Name`. Raises ConfigError if it cannot be imported or called."""
    try:
        found = resolve(name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not callable(found):
        raise ConfigError(
            f"The {what} {name}: expected a class, found {type(found).__name__}. Name a class."
        )
    return found


def constructed(
    name: str, found: Callable[..., Any], options: Mapping[str, Any], *given: Any, what: str
) -> Any:
    """`found(*given, **options)`; an error of the plug-in's own code becomes a ConfigError."""
    try:
        return found(*given, **options)
    except DerainError:
        raise
    except Exception as error:
        raise ConfigError(
            f"The {what} {name} cannot be built with {dict(options)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def check_options(
    name: str,
    found: Callable[..., Any],
    options: Mapping[str, Any],
    key: str,
    given: Collection[str] = (),
) -> None:
    """Raise ConfigError unless a class takes these options.

    Names and required options are those of its constructor, without those that the platform has
    `given`; a value is checked if the option has a type annotation that pydantic knows.
    """
    parameters = {k: p for k, p in _parameters(found).items() if k not in given}
    known = [option for option, parameter in parameters.items() if parameter.kind in _BY_NAME]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in known and not takes_any:
            raise ConfigError(f"`{key}.{option}`: {name} has no such option.{_near(option, known)}")
    for option in known:
        if option not in options and parameters[option].default is inspect.Parameter.empty:
            raise ConfigError(f"`{key}.{option}` is missing; {name} needs it.")
    hints = {
        **{option: bool for option in known if isinstance(parameters[option].default, bool)},
        **_hints(found),
    }
    for option, value in options.items():
        if option in hints:
            _check_value(f"`{key}.{option}`", hints[option], value)


def takes(found: Callable[..., Any], option: str) -> bool:
    """Whether a class has an option of this name."""
    return option in _parameters(found)


def _parameters(found: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The options of a constructor. A class without one of its own has none: torch.nn.Module's
    takes anything, to refuse it later."""
    # By its class: other packages wrap torch's constructor.
    owner = next((cls for cls in getattr(found, "__mro__", ()) if "__init__" in vars(cls)), None)
    if getattr(owner, "__module__", "") == "torch.nn.modules.module":
        return {}
    try:
        return inspect.signature(found).parameters
    except ValueError:  # of a class in C, which does not say
        return {"any": inspect.Parameter("any", inspect.Parameter.VAR_KEYWORD)}


def _near(option: str, known: list[str]) -> str:
    near = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
    hint = f" The nearest is `{near[0]}`." if near else ""
    return f"{hint} Its options: {', '.join(known) or 'none'}."


def _hints(found: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the constructor; none if one of them names something unknown here."""
    is_class, target = isinstance(found, type), found
    try:
        return get_type_hints(target.__init__ if is_class else target)
    except Exception:  # evaluates the texts of annotations
        return {}


def _check_value(key: str, hint: Any, value: Any) -> None:
    # Values come from YAML: a list is fine where a tuple is expected, a text is no number, and
    # `no` is a text, which would count as true.
    strict = (isinstance(value, str | bool) and hint in (int, float)) or (
        isinstance(value, str) and hint is bool
    )
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
        adapter.validate_python(value, strict=strict)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise ConfigError(f"{key}: expected {reason}, found {value!r}.") from None
    except PydanticUserError:  # a type that pydantic cannot check, or that has a config of its own
        return
