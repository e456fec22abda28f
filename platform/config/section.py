"""The base class of all config sections, and the types of their fields."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _anchored(path: str) -> str:
    """The absolute form of a local path, as workers have a different working directory."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


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
