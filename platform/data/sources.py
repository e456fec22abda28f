"""Datasets as they lie on disk: their layouts, turned into pairs."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from derain.data.pictures import is_picture
from derain.errors import DataError

FOLDER_NAMES = (
    ("input", "target"),
    ("rain", "norain"),
    ("rain", "clean"),
    ("rainy", "clean"),
    ("rainy", "norain"),
    ("data", "gt"),
    ("lq", "gt"),
)
"""The usual names of the two sub-folders: rainy, clean."""

MAX_KEY = 80
"""Longer names do not fit the 100 characters that a tar header has."""

LABELS = "labels.json"
"""Beside the two sub-folders: {file name: {label: value}}, carried into the samples."""


@dataclass(frozen=True)
class Pair:
    """A rainy picture and its clean one."""

    key: str
    """Unique in the dataset, without dots: a dot would end the key for WebDataset readers."""
    rain: Path
    clean: Path
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unpaired:
    """A picture that has no partner."""

    path: Path
    reason: str


def paired(source: Path) -> tuple[list[Pair], list[Unpaired]]:
    """Pairs of a folder with two sub-folders of FOLDER_NAMES, matched by file stem.

    Stems are compared without regard to case; file endings may differ. The pairs come in the order
    of their keys. Raises DataError when the sub-folders are not there or nothing matches.
    """
    rain_folder, clean_folder = _sides(source)
    rain, clean = _by_stem(rain_folder), _by_stem(clean_folder)
    unpaired = _without_partner(rain, clean, clean_folder)
    unpaired += _without_partner(clean, rain, rain_folder)
    stems = sorted(stem for stem in rain if stem in clean and _single(rain, clean, stem))
    if not stems:
        raise DataError(
            f"{source}: no file in {rain_folder.name}/ has a partner of the same name in "
            f"{clean_folder.name}/."
        )
    keys = slugs(rain[stem][0].stem for stem in stems)
    labels = _labels(source)
    pairs = [
        Pair(key, rain[stem][0], clean[stem][0], labels.get(rain[stem][0].stem, {}))
        for key, stem in zip(keys, stems, strict=True)
    ]
    return pairs, unpaired


def slugs(names: Iterable[str]) -> list[str]:
    """Unique keys made of letters, digits, `-` and `_`; equal slugs get a number."""
    taken: dict[str, int] = {}
    keys = []
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:MAX_KEY] or "picture"
        while slug in taken:
            taken[slug] += 1
            slug = f"{slug}-{taken[slug]}"
        taken[slug] = 1
        keys.append(slug)
    return keys


def fingerprint(source: Path, pairs: Sequence[Pair]) -> str:
    """sha256 over names and sizes of the source files and the labels, to notice a change."""
    digest = hashlib.sha256()
    for pair in pairs:
        for path in (pair.rain, pair.clean):
            stat = path.stat()
            name = path.relative_to(source).as_posix()
            digest.update(f"{name}\t{stat.st_size}\n".encode())
        digest.update(json.dumps(dict(pair.labels), sort_keys=True).encode())
    return digest.hexdigest()


def _sides(source: Path) -> tuple[Path, Path]:
    if not source.is_dir():
        raise DataError(f"{source}: no such folder.")
    for rain, clean in FOLDER_NAMES:
        if (source / rain).is_dir() and (source / clean).is_dir():
            return source / rain, source / clean
    usual = ", ".join("/".join(names) for names in FOLDER_NAMES)
    found = ", ".join(sorted(path.name for path in source.iterdir())[:8]) or "nothing"
    raise DataError(f"{source}: expected two sub-folders ({usual}), found {found}.")


def _labels(source: Path) -> dict[str, dict[str, str]]:
    """What labels.json says of each picture, by file stem; nothing where there is no such file."""
    path = source / LABELS
    if not path.is_file():
        return {}
    try:
        named = json.loads(path.read_text(encoding="utf-8"))
        return {
            Path(name).stem: {key: str(value) for key, value in labels.items()}
            for name, labels in named.items()
        }
    except (ValueError, AttributeError):
        raise DataError(f"{path}: expected {{file name: {{label: value}}}}.") from None


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    stems: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_picture(path):
            stems.setdefault(path.stem.casefold(), []).append(path)
    return stems


def _single(rain: dict[str, list[Path]], clean: dict[str, list[Path]], stem: str) -> bool:
    return len(rain[stem]) == len(clean[stem]) == 1


def _without_partner(
    side: dict[str, list[Path]], other: dict[str, list[Path]], other_folder: Path
) -> list[Unpaired]:
    alone = [
        Unpaired(path, f"no partner of this name in {other_folder.name}/")
        for stem, paths in side.items()
        for path in paths
        if stem not in other
    ]
    twice = [
        Unpaired(path, "several files have this name up to its ending")
        for stem, paths in side.items()
        for path in paths
        if stem in other and (len(paths) > 1 or len(other[stem]) > 1)
    ]
    return alone + twice
