"""Usual names of folders for rainy and for clean images, and the layouts that they make."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
_COUPLES_EXAMINED, _NAMES_EXAMINED = 10, 100
"""How many folders of a kind are looked at, and names in each, to see what they have in common."""

Shape = tuple[str | None, ...]


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
    `train/rain` and `train/clean`, or `rain/train` and `norain/train`. Where several folders have
    such a couple, as scenes do, one layout has them all.
    """
    by_folder = _by_folder(names)
    clean: dict[object, list[_Side]] = {}
    for folder in by_folder:
        for side in _sides(folder, CLEAN_NAMES):
            clean.setdefault(side.around, []).append(side)
    groups: dict[tuple[str, str, Shape, Shape], list[tuple[_Side, _Side]]] = {}
    for folder in by_folder:
        for one in _sides(folder, RAINY_NAMES):
            for other in clean.get(one.around, []):
                key = one.name, other.name, _shape(one.before), _shape(one.after)
                groups.setdefault(key, []).append((one, other))
    ordered = sorted(groups.items(), key=lambda it: _rank(it[0][0], it[0][1]))
    found = (_layouts(split, couples, by_folder) for _, couples in ordered)
    return list({str(layout): layout for layouts in found for layout in layouts}.values())


def _rank(rainy: str, clean: str) -> tuple[int, int, int]:
    """The place of two folder names among all; the most usual couples come first."""
    names = (rainy, clean)
    usual = USUAL_FOLDERS.index(names) if names in USUAL_FOLDERS else len(USUAL_FOLDERS)
    return usual, RAINY_NAMES.index(rainy), CLEAN_NAMES.index(clean)


def _by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """The stems of the images of each folder."""
    found: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        found.setdefault(folder, []).append(stem(file))
    return found


def _sides(folder: str, names: Sequence[str]) -> list[_Side]:
    parts = folder.split("/")
    return [
        _Side(folder, tuple(parts[:at]), fold(part), tuple(parts[at + 1 :]))
        for at, part in enumerate(parts)
        if fold(part) in names
    ]


def _shape(parts: Sequence[str]) -> Shape:
    """The folders of a path that name a split; None for each of the others."""
    return tuple(fold(part) if split_of(part) else None for part in parts)


def _layouts(
    split: str, couples: Sequence[tuple[_Side, _Side]], by_folder: Mapping[str, Sequence[str]]
) -> list[Layout]:
    """The layouts of folders with equal names at equal places.

    Folders of splits are literal, and those above if they are the same for all; others are fields.
    """
    rainy, clean = couples[0]
    same = len({tuple(map(fold, one.before)) for one, _ in couples}) == 1
    free = [*([] if same else _shape(rainy.before)), *_shape(rainy.after)]
    if free.count(None) > len(_FIELDS):
        return []
    fields = iter(f"{{{name}}}" for name in _FIELDS)
    folder = "/".join(rainy.before) if same else ""
    before = [] if same else _with_fields(rainy.before, fields)
    after = _with_fields(rainy.after, fields)
    shown = couples[:_COUPLES_EXAMINED]
    rains = [name for one, _ in shown for name in by_folder[one.folder][:_NAMES_EXAMINED]]
    cleans = [name for _, one in shown for name in by_folder[one.folder][:_NAMES_EXAMINED]]
    return [
        Layout(
            split,
            "/".join([*before, rainy.name, *after, rain]),
            ("/".join([*before, clean.name, *after, end]),),
            folder=folder,
        )
        for rain, end in [("{name}", "{name}"), *_affixed(rains, cleans)]
    ]


def _with_fields(parts: Sequence[str], fields: Iterator[str]) -> list[str]:
    return [part if split_of(part) else next(fields) for part in parts]


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
    return 2 * sum(has(fold(it), affix) for it in stems) > len(stems)
