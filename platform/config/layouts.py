"""A file of a user's own datasets, for `prepare --layouts` and `datasets --layouts`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from derain.config.section import Section
from derain.config.source import read


def _one_or_many(value: Any) -> Any:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
Counts = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_one_or_many)]


class OwnLayout(Section):
    """Where the pairs of one split are."""

    split: str = Field(pattern=r"^\w+$")
    """The split that this layout is of."""
    rain: str
    """Pattern of the rainy images, relative to `folder`, such as `in/{id}_{n:d}.jpg`."""
    clean: Texts = ()
    """Pattern of their clean images; of several the first that fits is used."""
    folder: str = ""
    """The folder of the split below the source."""
    clean_half: Literal["left", "right", "none"] | None = None
    """The clean half, if a file holds two images side by side."""
    listing: str | None = None
    """A text file that lists the pairs, `rainy clean` in each line."""
    only: dict[str, tuple[int, int]] = Field(default_factory=dict)
    """First and last number of fields, for a split that is a part of a folder."""
    labels: Texts = ()
    """Fields that become labels of the image."""

    @model_validator(mode="after")
    def _has_one_clean_side(self) -> "OwnLayout":
        if self.clean and self.clean_half:
            raise ValueError("expected either clean or clean_half, not both")
        return self


class OwnDataset(Section):
    """A dataset of the user's own, with the keys of a row of the catalogue."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What `prepare` is given."""
    title: str = ""
    """Its full name; default: `name`."""
    about: str = ""
    """One sentence without its stop."""
    splits: dict[str, Counts]
    """The number of pairs of each split; nothing if it is not known."""
    layouts: Annotated[tuple[OwnLayout, ...], Field(min_length=1)]
    """At least one for each split."""
    where: str = "your own"
    """Where it is published."""
    terms: str = "yours"
    """Its licence, as an SPDX identifier if it has one."""
    folders: Texts = ()
    """Usual names of its folder, which `datasets --root` looks for."""
    aliases: Texts = ()
    """Other names of it."""

    @model_validator(mode="after")
    def _has_a_layout_for_each_split(self) -> "OwnDataset":
        described = {layout.split for layout in self.layouts}
        if described != set(self.splits):
            raise ValueError(
                f"expected a layout for each of the splits {', '.join(self.splits)}, found layouts "
                f"for {', '.join(sorted(described))}"
            )
        return self


class _Several(Section):
    datasets: Annotated[tuple[OwnDataset, ...], Field(min_length=1)]


def read_own_datasets(path: Path) -> tuple[OwnDataset, ...]:
    """The datasets of a file: one, or several as a list under `datasets`.

    Raises ConfigError, which names file, line and key, what was expected and what was found.
    """
    source = read(path)
    if "datasets" in source.tree:
        return source.validated(_Several, str(path)).datasets
    return (source.validated(OwnDataset, str(path)),)
