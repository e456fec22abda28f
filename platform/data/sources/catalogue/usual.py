"""Usual names of folders for rainy and for clean images, and the layouts that they make."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from derain.data.sources.catalogue.shared import USUAL_FOLDERS
from derain.data.sources.layouts import Layout
from derain.data.sources.names import fold, stem

RAINY_NAMES = (
    *("input", "rain", "rainy", "data", "lq", "rainy_image", "rain_image", "rainy_images"),
    *("rain_images", "inputs", "in", "lr", "low", "low_quality", "degraded", "degradation"),
    *("o", "a", "x", "source", "src", "wet", "raindrop", "rainstreak", "rain_streak", "noisy"),
    *("blended", "corrupted", "hazy", "train_input", "test_input", "input_rain", "rain_input"),
)
"""Folders of rainy images, without case; of several that fit, the first is taken."""

CLEAN_NAMES = (
    *("target", "norain", "clean", "gt", "groundtruth", "ground_truth", "ground-truth", "gts"),
    *("hq", "hr", "high", "high_quality", "label", "labels", "targets", "clear", "sharp", "b"),
    *("y", "background", "bg", "derained", "derain", "no_rain", "no-rain", "rainfree"),
    *("rain_free", "rain-free", "dry", "reference", "ref", "original", "origin", "clean_image"),
    *("clean_images", "train_target", "test_target", "reference_clean_image", "truth"),
)
"""Folders of clean images, without case; of several that fit, the first is taken."""

SPLIT_NAMES = {
    "train": ("train", "training", "train_set", "trainset", "trainset_rain"),
    "val": ("val", "valid", "validation", "validate", "val_set", "dev"),
    "test": ("test", "testing", "test_set", "testset", "eval", "evaluation"),
}
"""Usual folders of each split."""

_PREFIXES = (("rain-", "norain-"), ("rain_", "norain_"), ("rain", "norain"), ("rainy-", "clean-"))
_SUFFIXES = (("_rain", "_clean"), ("-rain", "-clean"), ("_rain", "_norain"), ("_rain", "_gt"))
"""Usual beginnings and ends of rainy and clean file names."""

_FIELDS = ("folder", "subfolder", "subsubfolder")
_PARTNERS_EXAMINED = 1000


@dataclass(frozen=True)
class _Side:
    """A folder of a usual name: where that name is in its path, and what is around it."""

    folder: str
    """The whole path as spelled."""
    before: tuple[str, ...]
    name: str
    after: tuple[str, ...]

    @property
    def around(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The path without the usual name; equal for a rainy folder and its clean one."""
        return tuple(map(fold, self.before)), tuple(map(fold, self.after))


def split_of(path: str) -> str | None:
    """The split that the folders of a path name, None if they name none or several."""
    parts = {fold(part) for part in path.split("/")}
    named = [split for split, names in SPLIT_NAMES.items() if not parts.isdisjoint(names)]
    return named[0] if len(named) == 1 else None


def split_key(split: str) -> str:
    """The usual name of a split: `val` for `validation`."""
    return next((key for key, names in SPLIT_NAMES.items() if fold(split) in names), fold(split))


def usual_layouts(names: Sequence[str], split: str) -> list[Layout]:
    """The layouts of usual folder names that the images of a source may be in, likely ones first.

    A rainy and a clean folder belong together if their paths differ in nothing but that name:
    `train/rain` and `train/clean`, or `rain/train` and `norain/train`.
    """
    by_folder = _by_folder(names)
    rainy = [it for folder in by_folder for it in _sides(folder, RAINY_NAMES)]
    clean: dict[object, list[_Side]] = {}
    for folder in by_folder:
        for side in _sides(folder, CLEAN_NAMES):
            clean.setdefault(side.around, []).append(side)
    couples = [(one, other) for one in rainy for other in clean.get(one.around, [])]
    couples.sort(key=lambda it: _rank(it[0].name, it[1].name))
    return _unique(
        layout
        for one, other in couples
        for layout in _layouts(split, one, other, by_folder[one.folder], by_folder[other.folder])
    )


def _rank(rainy: str, clean: str) -> tuple[int, int, int]:
    """The place of two folder names among all; the most usual couples come first."""
    names = (rainy, clean)
    usual = USUAL_FOLDERS.index(names) if names in USUAL_FOLDERS else len(USUAL_FOLDERS)
    return usual, RAINY_NAMES.index(rainy), CLEAN_NAMES.index(clean)


def _unique(layouts: Iterable[Layout]) -> list[Layout]:
    return list({str(layout): layout for layout in layouts}.values())


def _by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """The stems of the images of each folder."""
    found: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if not set("{}") & set(folder):
            found.setdefault(folder, []).append(stem(file))
    return found


def _sides(folder: str, names: Sequence[str]) -> list[_Side]:
    parts = folder.split("/")
    return [
        _Side(folder, tuple(parts[:at]), fold(part), tuple(parts[at + 1 :]))
        for at, part in enumerate(parts)
        if fold(part) in names
    ]


def _layouts(
    split: str, rainy: _Side, clean: _Side, rains: Sequence[str], cleans: Sequence[str]
) -> list[Layout]:
    """The layouts of two folders: below them, those of splits are literal, others are fields."""
    if len(rainy.after) > len(_FIELDS):
        return []
    fields = iter(_FIELDS)
    after = [
        part if split_of(part) else f"{{{field}}}"
        for part, field in zip(rainy.after, fields, strict=False)
    ]
    ways = [("{name}", "{name}"), *_affixed(rains, cleans)]
    folder = "/".join(rainy.before)
    return [
        Layout(
            split,
            "/".join([rainy.name, *after, rain]),
            ("/".join([clean.name, *after, end]),),
            folder=folder,
        )
        for rain, end in ways
    ]


def _affixed(rains: Sequence[str], cleans: Sequence[str]) -> list[tuple[str, str]]:
    """The usual beginnings and ends that most of the names have, as patterns."""
    ways = [(f"{a}{{name}}", f"{b}{{name}}", a, b, str.startswith) for a, b in _PREFIXES]
    ways += [(f"{{name}}{a}", f"{{name}}{b}", a, b, str.endswith) for a, b in _SUFFIXES]
    return [
        (rain, clean)
        for rain, clean, ours, theirs, has in ways
        if _mostly(rains, ours, has) and _mostly(cleans, theirs, has)
    ]


def _mostly(stems: Sequence[str], affix: str, has: Callable[[str, str], bool]) -> bool:
    examined = list(islice(stems, _PARTNERS_EXAMINED))
    return 2 * sum(has(fold(it), affix) for it in examined) > len(examined)
