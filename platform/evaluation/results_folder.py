"""Derained images that any other program wrote, paired by name with the pairs of a dataset."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from derain.data.images.convert import read_odd
from derain.data.images.decode import read_file
from derain.data.images.kinds import ending
from derain.data.prepared.manifest import Prepared
from derain.data.sources.inputs import find_inputs
from derain.data.sources.names import fold, printable, stem
from derain.errors import DataError

SEPARATORS = "_-."
"""What an ending that all results have in common begins with: `_NAFNet` in `1_NAFNet.png`."""
SHOWN = 3
Names = Mapping[str, str]
"""The name that the result of a pair should have, without ending -> the pair's key."""


@dataclass(frozen=True)
class ResultsFolder:
    """The results of one method on one dataset; small and picklable, pixels are read on demand."""

    name: str
    """Of the method, as its row of a table is called."""
    folder: Path
    files: Mapping[str, Path]
    """The result of a pair, by the pair's key. Keys without a result are in `missing`."""
    missing: Mapping[str, str]
    """Why a pair has no result, by its key: no file of its name, or more than one."""
    extra: tuple[str, ...]
    """Images in the folder that belong to no pair, relative to it, sorted."""
    paired_by: str
    """What their names are: `key`, `rainy path`, `rainy name` or `clean name`, and `+` the ending
    that they all have after it."""
    notes: tuple[str, ...] = ()
    """Other entries of the folder, which were not used."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why the metrics are not comparable with those of results stored without losses."""
        lossy = sum(ending(path.name) == ".jpg" for path in self.files.values())
        if not lossy:
            return ()
        return (f"{lossy} of its results are JPEG files, whose losses are in the metrics",)

    def levels(self, key: str, height: int, width: int) -> np.ndarray:
        """The derained image of a pair: uint8, HWC, RGB, sRGB, upright, of that size in pixels.

        16 bits are rounded to 8, as every protocol rounds a network's output; other colours become
        sRGB. Raises DataError, for that pair to be listed as left out: no result (see `missing`), a
        file that cannot be decoded or is partly transparent, another size than that of the pair.
        """
        if key in self.missing:
            raise DataError(self.missing[key])
        path = self.files[key]
        image = read_odd(read_file(path), str(path))
        if image.alpha is not None and image.alpha.min() < np.iinfo(image.alpha.dtype).max:
            raise DataError(f"{path}: is partly transparent; a derained image must be opaque.")
        pixels = image.plain()
        if pixels.shape[:2] != (height, width):
            raise DataError(
                f"{path}: expected {width}x{height} px, the size of its pair, found "
                f"{pixels.shape[1]}x{pixels.shape[0]} px. Results must be neither resized nor "
                "cropped."
            )
        return pixels


def open_results(name: str, folder: str | Path, dataset: Prepared) -> ResultsFolder:
    """Pair the images of a folder with the pairs of a dataset, by their names without endings.

    The names may be the pairs' keys, or those of the rainy or of the clean images, and may all have
    one more ending, such as `_NAFNet`; whichever fits most pairs. Folders below are searched too.
    Reads no pixels.

    Raises DataError if there is no such folder, if none of its images has the name of a pair, or if
    its names fit the pairs in two different ways.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder of results. Give --results NAME=FOLDER.")
    inputs = find_inputs([path])
    by_stem: dict[str, list[str]] = {}
    for image in inputs.images:
        by_stem.setdefault(stem(image.name), []).append(image.name)
    way, found = _best_way(path, by_stem, dataset)
    kind, _, common = way.partition(" + ")
    keys = dataset.column("key").tolist()
    files = {key: path / names[0] for key, names in found.items() if len(names) == 1}
    used = {name for names in found.values() for name in names}
    expected = {key: wanted + common for wanted, key in _ways(dataset)[kind].items()}
    return ResultsFolder(
        name=name,
        folder=path,
        files=files,
        missing={key: _why(key, expected, found, path) for key in keys if key not in files},
        extra=tuple(sorted(image.name for image in inputs.images if image.name not in used)),
        paired_by=way,
        notes=(*inputs.notes, *(f"{it.path}: {it.reason}" for it in inputs.left_out)),
    )


def find_folders(folder: str | Path, datasets: Mapping[str, Prepared]) -> dict[str, Path]:
    """The folder of the results on each dataset, by the dataset's name; those that are there.

    For a single dataset it is `folder` itself. For several, `folder` has one for each, called (in
    any case) like the dataset's name here, its prepared folder, its split or its dataset, whichever
    no other of them shares: `rain100l`, for example.

    Raises DataError if there is none of them.
    """
    path = Path(folder)
    if len(datasets) == 1:
        return dict.fromkeys(datasets, path)
    titles = {name: _titles(name, dataset) for name, dataset in datasets.items()}
    shared = Counter(title for each in titles.values() for title in each)
    there = {fold(str(it.relative_to(path).as_posix())): it for it in _folders_below(path)}
    found = {}
    for name, each in titles.items():
        fitting = [there[title] for title in each if shared[title] == 1 and title in there]
        if fitting:
            found[name] = fitting[0]
    if not found:
        raise DataError(
            f"{path}: expected a folder of results for each of the {len(datasets)} datasets, such "
            f"as {path / next(iter(datasets))}; there is none."
        )
    return found


def _titles(name: str, dataset: Prepared) -> list[str]:
    """What the folder of the results on a dataset may be called, folded; likely names first."""
    manifest = dataset.manifest
    titles = (name, dataset.folder.name, f"{manifest.dataset}/{manifest.split}", manifest.split)
    return list(dict.fromkeys(map(fold, (*titles, manifest.dataset))))


def _folders_below(folder: Path) -> list[Path]:
    """The folders in a folder, and those in them. Raises DataError if there is no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of results. Give --results NAME=FOLDER.")
    first = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    return first + [path for above in first for path in sorted(above.iterdir()) if path.is_dir()]


def _best_way(
    folder: Path, by_stem: Mapping[str, Sequence[str]], dataset: Prepared
) -> tuple[str, dict[str, list[str]]]:
    """How the names of the files fit most pairs, and the files of each pair."""
    ways = _ways(dataset)
    fits = {way: _paired(names, by_stem, "") for way, names in ways.items()}
    if not any(fits.values()):
        for common in _common_endings(by_stem):
            fits |= {
                f"{way} + {common}": _paired(names, by_stem, common) for way, names in ways.items()
            }
    best = max(fits, key=lambda way: len(fits[way]))
    if not fits[best]:
        wanted = " or ".join(
            f"`{it}`" for it in dict.fromkeys(next(iter(n)) for n in ways.values())
        )
        seen = ", ".join(printable(names[0]) for names in list(by_stem.values())[:SHOWN])
        raise DataError(
            f"{folder}: none of its {len(by_stem)} images has the name of a pair of "
            f"{dataset.folder}. Expected names such as {wanted}, with the ending of an image; "
            f"found {seen}."
        )
    _check_one_way(folder, best, fits)
    return best, fits[best]


def _check_one_way(
    folder: Path, best: str, fits: Mapping[str, Mapping[str, Sequence[str]]]
) -> None:
    """Raise DataError if another way gives as many pairs, but other ones."""
    for way, found in fits.items():
        if len(found) < len(fits[best]) or found == fits[best]:
            continue
        key = next(key for key in {**found, **fits[best]} if found.get(key) != fits[best].get(key))
        raise DataError(
            f"{folder}: ambiguous names: as {best}s they fit {len(found)} pairs, and as {way}s "
            f"equally many, but pair {key} would get {fits[best].get(key, ['nothing'])[0]} or "
            f"{found.get(key, ['nothing'])[0]}. Name the results after the keys of the pairs."
        )


def _ways(dataset: Prepared) -> dict[str, Names]:
    """The names that results may have, by what they are; only ways in which no two pairs share one.

    Paths are relative to the folder that all rainy images are in.
    """
    keys = dataset.column("key").tolist()
    rainy = [stem(name) for name in dataset.column("rain_source").tolist()]
    above = os.path.commonpath([os.path.dirname(name) for name in rainy])  # noqa: PTH120
    names = {
        "key": keys,
        "rainy path": [name[len(above) :].lstrip("/") for name in rainy],
        "rainy name": [PurePosixPath(name).name for name in rainy],
    }
    clean = dataset.column("clean_source").tolist()
    if None not in clean:
        names["clean name"] = [PurePosixPath(stem(name)).name for name in clean]
    ways = {way: dict(zip(each, keys, strict=True)) for way, each in names.items()}
    return {way: by_name for way, by_name in ways.items() if len(by_name) == len(keys)}


def _paired(
    names: Names, by_stem: Mapping[str, Sequence[str]], common: str
) -> dict[str, list[str]]:
    """The files of each pair that has any; files in folders below count by path or by name."""
    found: dict[str, list[str]] = {}
    for path, files in by_stem.items():
        if not path.endswith(common):
            continue
        whole = path.removesuffix(common)
        key = names.get(whole) or names.get(PurePosixPath(whole).name)
        if key is not None:
            found.setdefault(key, []).extend(files)
    return found


def _common_endings(stems: Iterable[str]) -> list[str]:
    """The ends that all names share and that begin with a separator, the longest first."""
    stems = list(stems)
    length = len(os.path.commonprefix([name[::-1] for name in stems]))  # noqa: RUF071, of texts
    shared = stems[0][len(stems[0]) - length :]
    return [shared[at:] for at, letter in enumerate(shared) if letter in SEPARATORS]


def _why(
    key: str, expected: Mapping[str, str], found: Mapping[str, Sequence[str]], folder: Path
) -> str:
    """Why a pair has no result."""
    if key not in found:
        return f"{folder}: no result; expected an image called `{printable(expected[key])}`."
    names = " and ".join(printable(name) for name in sorted(found[key])[:SHOWN])
    return f"{folder}: {len(found[key])} results: {names}. Keep one of them."
