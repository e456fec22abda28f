"""The options of a user-defined network, checked like the keys of a config before it is built."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from torch import nn

from derain.errors import ConfigError
from derain.models import user_defined_class

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the class `module:Class` takes these options.

    Names and required options are those of its constructor; a value is checked if the option has a
    type annotation that pydantic knows. Raises ValueError if the class cannot be imported.
    """
    network = user_defined_class(name)
    parameters = inspect.signature(network).parameters
    known = [key for key, option in parameters.items() if option.kind in _BY_NAME]
    takes_any = network.__init__ is not nn.Module.__init__ and any(
        option.kind is inspect.Parameter.VAR_KEYWORD for option in parameters.values()
    )
    for key in options:
        if key not in known and not takes_any:
            raise ConfigError(f"`model.{key}`: {name} has no such option.{_nearest(key, known)}")
    for key in known:
        if key not in options and parameters[key].default is inspect.Parameter.empty:
            raise ConfigError(f"`model.{key}` is missing; {name} needs it.")
    hints = {
        **{key: bool for key in known if isinstance(parameters[key].default, bool)},
        **_hints(network),
    }
    for key, value in options.items():
        if key in hints:
            _check_value(f"`model.{key}`", hints[key], value)


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f" The nearest is `{near[0]}`." if near else ""
    return f"{hint} Its options: {', '.join(known) or 'none'}."


def _hints(network: type[nn.Module]) -> dict[str, Any]:
    """The annotations of the constructor; none if one of them names something unknown here."""
    try:
        return get_type_hints(network.__init__)
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
