"""Datasets as they lie on disk: the rows of the catalogue, turned into pairs."""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from derain.data.images.decode import ending, is_image
from derain.data.sources.catalogue import CATALOGUE
from derain.data.sources.layouts import Dataset, Half, Layout, layouts_of
from derain.data.sources.matching import Couple, Matched, Unpaired, match, strangers
from derain.data.sources.pairs import Pair, in_scenes, slugs
from derain.errors import DataError
from derain.storage import files


@dataclass(frozen=True)
class Naming:
    """A naming of the user's own, in place of the catalogue's rows."""

    rain: str
    clean: str | None = None
    clean_half: Half | None = None


def naming(rain: str | None, clean: str | None, clean_half: Half | None) -> Naming | None:
    """A naming from its parts, None where none is given. Raises DataError for half a naming."""
    if rain is None and clean is None and clean_half is None:
        return None
    if rain is None:
        raise DataError("--clean and --clean-half need --rain beside them.")
    return Naming(rain, clean, clean_half)


def share_of(text: str) -> tuple[float, float]:
    """LOW:HIGH as numbers. Raises DataError unless 0 <= LOW < HIGH <= 1."""
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise DataError(f"--share is LOW:HIGH with 0 <= LOW < HIGH <= 1; found {text!r}.")
    return low, high


@dataclass(frozen=True)
class Found:
    """What a source holds of one split."""

    dataset: Dataset
    split: str
    layout: Layout
    pairs: list[Pair]
    unpaired: list[Unpaired]
    total: int
    """Pairs before a share of them was taken and leaks were left out."""
    leaked: list[Pair]
    """What was left out of them."""
    strangers: list[str]
    """Images that have no place in the layout, nor in that of another split."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the result must know: another count than published, mixed formats."""
        return (
            *self._count_note(),
            *self._leak_note(),
            *self._format_notes(),
            *self._stranger_note(),
        )

    def _leak_note(self) -> Iterator[str]:
        if self.leaked:
            yield (
                f"{len(self.leaked):,} pairs were left out: another dataset has their clean images."
            )

    def _count_note(self) -> Iterator[str]:
        published = self.dataset.splits.get(self.split, ())
        if published and self.total not in published:
            stated = " or ".join(f"{count:,}" for count in published)
            yield (
                f"{self.dataset.title}, {self.split}: {self.total:,} pairs were found, "
                f"{stated} are published."
            )

    def _format_notes(self) -> Iterator[str]:
        if self.layout.clean_half:
            return  # split images are PNGs all of them
        sides = {
            "rainy": {ending(pair.rain) for pair in self.pairs},
            "clean": {ending(pair.clean) for pair in self.pairs if pair.clean},
        }
        for side, endings in sides.items():
            if len(endings) > 1:
                yield (
                    f"The {side} images mix {' and '.join(sorted(endings))}, as the source does: "
                    'Hugging Face load_dataset("webdataset") wants one format a column.'
                )

    def _stranger_note(self) -> Iterator[str]:
        if self.strangers:
            yield (
                f"Images without a place in the layout {self.layout}, which were left out: "
                f"{len(self.strangers):,}, such as {self.strangers[0]}."
            )


def check(dataset: str, source: Path, split: str | None) -> None:
    """Raise DataError for an unknown dataset or split, or a source that holds no image."""
    _chosen(dataset, split)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder.")
    if not files.is_remote(source) and not any(map(is_image, files.walk(source))):
        drawn = f"`derainctl datasets {dataset}` draws what is expected"
        raise DataError(f"{source}: holds no image. {drawn}.")  # before Ray is started


def find(
    dataset: str,
    source: Path,
    split: str | None = None,
    *,
    naming: Naming | None = None,
    share: tuple[float, float] = (0.0, 1.0),
    without: Collection[str] | None = None,
    clean_once: bool = False,
) -> Found:
    """The pairs of a split (else of the dataset's first), in the order of their clean images.

    `share` takes a part of the clean images, with all rainy ones that belong to them: (0, 0.9)
    and (0.9, 1) have none in common. `without` names clean files that are left out. With
    `clean_once` all pairs of a clean image are one sample. Raises DataError for an unknown
    dataset or split, a source that is not there or holds nothing that fits.
    """
    row, chosen = _chosen(dataset, split)
    layouts = (_own(row, chosen, naming),) if naming else layouts_of(row, chosen)
    check(dataset, source, split)
    names, nameless = _images(source)
    best = _best(layouts, row, source, names)
    if not best.couples:
        raise _nothing(row, chosen, source, layouts, [*best.unpaired, *nameless], names)
    kept, leaked = _parted(best.couples, source, share, without or ())
    pairs = _pairs(kept, best.layout)
    others = () if naming or row.any_split else [it for it in row.layouts if it.split != chosen]
    return Found(
        dataset=row,
        split=chosen,
        layout=best.layout,
        pairs=in_scenes(pairs) if clean_once else pairs,
        unpaired=[*best.unpaired, *nameless],
        total=len(best.couples),
        leaked=_pairs(leaked, best.layout),
        strangers=strangers(best, others, row, source, names),
    )


def counts(dataset: Dataset, source: Path) -> dict[str, int]:
    """How many pairs of each split lie in a folder; splits without any are left out."""
    return _counts(dataset, source, _images(source)[0])


def _counts(dataset: Dataset, source: Path, names: Sequence[str]) -> dict[str, int]:
    pairs = {
        split: len(_best(layouts_of(dataset, split), dataset, source, names).couples)
        for split in dataset.splits
    }
    return {split: count for split, count in pairs.items() if count}


def _chosen(dataset: str, split: str | None) -> tuple[Dataset, str]:
    row = CATALOGUE.get(dataset)
    if row is None:
        raise DataError(f"{dataset}: no such dataset. Known: {', '.join(CATALOGUE)}.")
    if split and split not in row.splits and not row.any_split:
        raise DataError(f"{dataset}: has no split {split!r}, but {', '.join(row.splits)}.")
    if split and not re.fullmatch(r"\w+", split, re.ASCII):  # what Hugging Face takes as a name
        raise DataError(f"--split {split!r}: expected letters, digits and underscores.")
    return row, split or next(iter(row.splits))


def _own(row: Dataset, split: str, naming: Naming) -> Layout:
    if naming.clean and naming.clean_half:
        raise DataError("A naming has clean files of their own or clean halves, not both.")
    needs_clean = all(layout.clean or layout.clean_half for layout in row.layouts)
    if needs_clean and not (naming.clean or naming.clean_half):
        raise DataError(f"{row.name}: --rain needs --clean or --clean-half beside it.")
    clean = (naming.clean,) if naming.clean else ()
    return Layout(split, naming.rain, clean, clean_half=naming.clean_half)


def _best(layouts: Sequence[Layout], row: Dataset, source: Path, names: Sequence[str]) -> Matched:
    """The layout that finds the most pairs, the first of equals.

    Where none finds any, that which fits the most names: what it misses is the reason.
    """
    found = [match(layout, row, source, names) for layout in layouts]
    return max(found, key=lambda it: (len(it.couples), 0 if it.couples else len(it.unpaired)))


def _images(source: Path) -> tuple[list[str], list[Unpaired]]:
    """Names of all images below a folder, in order, and those that are no text."""
    found = [name for name in files.walk(source) if is_image(name)]
    named = [name for name in found if name.isascii() or _printable(name) == name]
    nameless = [] if len(named) == len(found) else sorted(map(_printable, {*found} - {*named}))
    return (
        sorted(named, key=lambda name: (name.casefold(), name)),
        [Unpaired(name, "its name is not UTF-8: rename it") for name in nameless],
    )


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _parted(
    couples: Sequence[Couple], source: Path, share: tuple[float, float], without: Collection[str]
) -> tuple[list[Couple], list[Couple]]:
    """What a share has without some clean images, and what it has of those."""
    whole = share == (0.0, 1.0)
    part = [it for it in couples if whole or share[0] <= _place(it) < share[1]]
    if not part:
        raise DataError(f"{source}: no pair lies in the share {share[0]:g}:{share[1]:g}.")
    kept = [couple for couple in part if couple.clean not in without]
    if not kept:
        raise DataError(f"{source}: no pair is left; --without names all their clean images.")
    if without and not any(couple.clean in without for couple in couples):
        raise DataError(
            f"{source}: has none of the images that were to be left out, such as {min(without)}. "
            "Their list is of another dataset, or this source begins at another folder."
        )
    return kept, [couple for couple in part if couple.clean in without]


def _place(couple: Couple) -> float:
    """Where a clean image lies between 0 and 1, by its name: all its rainy ones lie there too."""
    name = PurePosixPath(couple.clean or couple.rain).with_suffix("").as_posix().casefold()
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") / 2**56


def _pairs(couples: Iterable[Couple], layout: Layout) -> list[Pair]:
    """In the order of the clean images, so that the rainy ones of a scene are neighbours."""
    ordered = sorted(couples, key=_scene_order)
    keys = slugs(couple.stem for couple in ordered)
    return [
        Pair(key, it.rain, it.clean, it.labels, layout.clean_half)
        for key, it in zip(keys, ordered, strict=True)
    ]


def _scene_order(couple: Couple) -> tuple[str, str, str]:
    clean = couple.clean or ""
    return clean.casefold(), clean, couple.rain.casefold()


def _nothing(
    row: Dataset,
    split: str,
    source: Path,
    layouts: Sequence[Layout],
    unpaired: Sequence[Unpaired],
    names: Sequence[str],
) -> DataError:
    shapes = [" + ".join((layout.rain, *layout.clean)) for layout in layouts]
    expected = "\n  ".join(dict.fromkeys(shapes))
    found = ", ".join(names[:: max(1, len(names) // 4)][:4]) or "no image"
    if unpaired:
        found = f"{unpaired[0].path}: {unpaired[0].reason}"
    advice = "For other names give --rain and --clean (`derainctl datasets`)"
    elsewhere = {} if row.any_split else _counts(row, source, names)
    elsewhere.pop(split, None)
    if elsewhere:
        other, count = max(elsewhere.items(), key=lambda it: it[1])
        advice = f"It holds {count:,} pairs of the split {other}: give --split {other}"
    return DataError(
        f"{source}: holds no pair of {row.name}, split {split}. Expected one of\n  {expected}\n"
        f"found {found}. {advice}."
    )
