"""The options of `prepare`, and how the manifest records them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from derain.data.sources.selection import Naming

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
    """Raise DataError, and write no manifest, if any pair cannot be used."""
    decode: bool = False
    """Decode every image; by default only headers and checksums are inspected."""
    clean_once: bool = False
    """Store a clean image once, in one WebDataset sample with all of its rainy images."""
    shard_mib: int = 128
    """Maximum size of a shard in MiB; a sample that is larger gets a shard of its own."""
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
        if self.clean_once:
            settings["clean_once"] = True
        return settings


DEFAULTS = PrepareOptions()
