"""What a user selects from a source: custom file names, a share, clean images to leave out."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from derain.data.sources.layouts import Dataset, Half, Layout, has_clean
from derain.data.sources.matching import MatchedPair
from derain.errors import DataError


@dataclass(frozen=True)
class Naming:
    """Custom patterns of file names, in place of the layouts in the catalogue."""

    rain: str
    clean: str | None = None
    clean_half: Half | None = None

    def layout(self, dataset: Dataset, split: str) -> Layout:
        """These patterns as a layout.

        Raises DataError for clean files and clean halves together, and for neither of them where
        the dataset has clean images.
        """
        if self.clean and self.clean_half:
            raise DataError("Give either --clean or --clean-half, not both.")
        if has_clean(dataset, split) and not (self.clean or self.clean_half):
            raise DataError(f"{dataset.name}: --rain also needs --clean or --clean-half.")
        clean = (self.clean,) if self.clean else ()
        return Layout(split, self.rain, clean, clean_half=self.clean_half, any_ending=False)


def parse_naming(rain: str | None, clean: str | None, clean_half: Half | None) -> Naming | None:
    """The naming that these options describe, None without options.

    Raises DataError for options of clean images without `rain`.
    """
    if rain is None and clean is None and clean_half is None:
        return None
    if rain is None:
        raise DataError("--clean and --clean-half also need --rain.")
    return Naming(rain, clean, clean_half)


def parse_share(text: str) -> tuple[float, float]:
    """LOW:HIGH as numbers. Raises DataError unless 0 <= LOW < HIGH <= 1."""
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise DataError(f"--share is LOW:HIGH with 0 <= LOW < HIGH <= 1; found {text!r}.")
    return low, high


def select(
    pairs: Sequence[MatchedPair],
    source: Path,
    share: tuple[float, float],
    without: Collection[str],
) -> tuple[list[MatchedPair], list[MatchedPair]]:
    """The pairs of a share: those to keep, and those whose clean image is in `without`.

    Raises DataError when nothing is left, and when `without` names no image of the source.
    """
    whole = share == (0.0, 1.0)
    part = [it for it in pairs if whole or share[0] <= _position(it) < share[1]]
    if not part:
        raise DataError(f"{source}: the share {share[0]:g}:{share[1]:g} contains no pair.")
    kept = [pair for pair in part if pair.clean not in without]
    if not kept:
        raise DataError(f"{source}: no pair is left; --without lists all their clean images.")
    if without and not any(pair.clean in without for pair in pairs):
        raise DataError(
            f"{source}: contains none of the images that --without lists, such as {min(without)}. "
            "The list was made for another dataset, or SOURCE is a different folder of this one."
        )
    return kept, [pair for pair in part if pair.clean in without]


def _position(pair: MatchedPair) -> float:
    """A hash of the clean image's name, in [0, 1): all rainy images of a clean one share it."""
    name = PurePosixPath(pair.clean or pair.rain).with_suffix("").as_posix().casefold()
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") / 2**56
