"""What every section of the config is made of."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _anchored(path: str) -> str:
    """A local path made absolute, since workers have another working directory."""
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _on_this_machine(path: str) -> str:
    """The same for what has to be a folder here, since it is appended to, locked or mapped."""
    if "://" in path:
        raise ValueError(f"expected a folder of this machine (or one that it mounts), found {path}")
    return _anchored(path)


def _anchored_if_file(value: str) -> str:
    """The same for a value that is a path or a plain name."""
    return _anchored(value) if "/" in value or Path(value).suffix else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


LocalPath = Annotated[str, AfterValidator(_anchored)]
LocalFolder = Annotated[str, AfterValidator(_on_this_machine)]
NameOrPath = Annotated[str, AfterValidator(_anchored_if_file)]
Prepared = Annotated[tuple[LocalPath, ...], BeforeValidator(_one_or_many)]


Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""torch takes no larger one."""


class Section(BaseModel):
    """A part of the config: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )
