"""The options of `prepare`, and how the manifest records them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from derain.data.sources.catalogue import find_dataset
from derain.data.sources.catalogue.own_file import read_rows
from derain.data.sources.layouts import Dataset
from derain.data.sources.selection import Naming
from derain.errors import UsageError

ALL = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Which pairs to take, how to check them and how to store them."""

    split: str | None = None
    """Default: the dataset's first split."""
    naming: Naming | None = None
    """File names of the user's own, in place of the catalogue's layouts."""
    share: tuple[float, float] = ALL
    """Take only this range of the clean images, see `discover.find_pairs`."""
    without: Mapping[str, str] | None = None
    """Clean images to leave out: SHA-256 by file name, as `leaks` found them."""
    strict: bool = False
    """Raise StrictError, and write no manifest, if anything that may be an image is not used, or
    labels are partial or of no image."""
    decode: bool = False
    """Decode every image; by default only headers and checksums are inspected."""
    convert: bool = False
    """Convert images that are not plain 8-bit sRGB, by the rules of `images.convert`, and store
    them as PNG; by default they are quarantined."""
    clean_once: bool = False
    """Store a clean image once, in one WebDataset sample with all of its rainy images."""
    shard_mib: int = 128
    """Maximum size of a shard in MiB; a sample that is larger gets a shard of its own."""
    card: Mapping[str, str] = field(default_factory=dict)
    """What the dataset card says of data of one's own: `name`, `licence`, `source`."""
    pairs_per_shard: int | None = None
    """Maximum number of pairs in a shard; a sample with more pairs gets a shard of its own."""

    def settings(self) -> dict[str, Any]:
        """The options that the manifest records; apart from `shard_mib` only non-default ones."""
        settings: dict[str, Any] = {"shard_mib": self.shard_mib}
        if self.pairs_per_shard is not None:
            settings["pairs_per_shard"] = self.pairs_per_shard
        if self.share != ALL:
            settings["share"] = list(self.share)
        if self.decode:
            settings["decode"] = True
        if self.convert:
            settings["convert"] = True
        if self.clean_once:
            settings["clean_once"] = True
        if self.card:
            settings["card"] = dict(self.card)
        return settings


DEFAULTS = PrepareOptions()


def dataset_row(name: str, layouts: Path | None) -> Dataset:
    """The row of a dataset, from a file with rows of the user's own or from the catalogue.

    Raises DataError for an unknown name, ConfigError for a file that is not as expected.
    """
    return find_dataset(name, () if layouts is None else read_rows(layouts))


def parse_card(
    row: Dataset, name: str | None, licence: str | None, source: str | None
) -> dict[str, str]:
    """What the card is to say of one's own data, without options that were not given.

    Raises UsageError for a published dataset, whose card has what its authors state, and for empty
    text.
    """
    given = {"name": name, "licence": licence, "source": source}
    stated = {key: value.strip() for key, value in given.items() if value is not None}
    if stated and not (row.any_split or row.own):
        raise UsageError(
            f"--{next(iter(stated))} is for data of your own (paired, unpaired, --layouts): the "
            f"card of {row.name} states what its authors do."
        )
    if empty := next((key for key, value in stated.items() if not value), None):
        raise UsageError(f"--{empty}: expected some text, found none.")
    return stated
