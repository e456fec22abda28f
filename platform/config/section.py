"""The base class of all config sections, and the types of their fields."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema


def _anchored(path: str) -> str:
    """The absolute form of a local path, as workers have a different working directory."""
    try:
        return path if "://" in path else str(Path(path).expanduser().absolute())
    except RuntimeError:
        raise ValueError(f"there is no home folder of that user, found {path}") from None


def _anchored_local(path: str) -> str:
    """The same for a folder that must be local, as files in it are locked or memory-mapped."""
    if "://" in path:
        raise ValueError(f"expected a folder on this machine (it may be mounted), found {path}")
    return _anchored(path)


def _anchored_if_file(value: str) -> str:
    """The same for a value that is either a path or a plain name."""
    return _anchored(value) if "/" in value or Path(value).suffix else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


LocalPath = Annotated[str, AfterValidator(_anchored)]
LocalFolder = Annotated[str, AfterValidator(_anchored_local)]
NameOrPath = Annotated[str, AfterValidator(_anchored_if_file)]
Prepared = Annotated[
    tuple[LocalPath, ...],
    BeforeValidator(_one_or_many, json_schema_input_type=str | tuple[str, ...]),
]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""torch accepts no larger seed."""


class Section(BaseModel):
    """A part of the config: unknown keys are errors, and values are immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag_is_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes true for 1."""
        field = cls.model_fields[str(info.field_name)]
        if _has_flag(value) and _is_of_numbers(field.annotation):
            raise ValueError(f"expected a number, found {value!r}")
        return value


def _has_flag(value: Any) -> bool:
    return isinstance(value, bool) or (
        isinstance(value, list | tuple) and any(map(_has_flag, value))
    )


def _is_of_numbers(annotation: Any) -> bool:
    """Whether values of a type may have numbers in them, and no flags."""
    kinds = set(_plain_types(annotation))
    return bool(kinds & {int, float}) and not kinds & {bool, Any}


def _plain_types(annotation: Any) -> Iterator[Any]:
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield from map(type, inner)
    elif inner:
        for each in inner:
            yield from _plain_types(each)
    elif isinstance(annotation, type) or annotation is Any:  # not what Annotated adds
        yield annotation


PLUGIN_NAME = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""`module:Name`, a class of the user's."""


class Choice(Section):
    """Something by its name, or `module:Name`, a class of the user's; all other keys are its
    options. A name alone is written as a text."""

    model_config = ConfigDict(extra="allow")

    known: ClassVar[tuple[str, ...]] = ()
    """The names of the platform's own."""
    known_have_options: ClassVar[bool] = False

    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str | dict | cls):
            return {"name": value} if isinstance(value, str) else value
        raise ValueError(f"expected {cls._expected()}, or a section with `name`, found {value!r}")

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name in cls.known or re.match(PLUGIN_NAME, name):
            return name
        raise ValueError(f"expected {cls._expected()}, found {name!r}")

    @model_validator(mode="after")
    def _only_some_have_options(self) -> Self:
        if self.name in self.known and self.options and not self.known_have_options:
            raise ValueError(f"{self.name} has no options, found {', '.join(self.options)}")
        return self

    @classmethod
    def _expected(cls) -> str:
        return " or ".join(filter(None, (", ".join(cls.known), "module:Name")))

    @model_serializer
    def _as_short_as_possible(self) -> str | dict[str, Any]:
        return {"name": self.name, **self.options} if self.options else self.name

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A text, or a section that has the name and options."""
        own = {"type": "string", "pattern": PLUGIN_NAME}
        names = [{"enum": list(cls.known)}, own] if cls.known else [own]
        section = {"type": "object", "properties": {"name": {"anyOf": names}}, "required": ["name"]}
        return {"anyOf": [*names, section], "title": cls.__name__}

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})
