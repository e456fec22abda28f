"""Find the pairs of a dataset in a folder, by the layouts that the catalogue lists for it."""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from derain.data.images.decode import ending, is_image
from derain.data.sources.catalogue import CATALOGUE
from derain.data.sources.layouts import Dataset, Layout, layouts_of
from derain.data.sources.matching import (
    LayoutMatch,
    MatchedPair,
    Unpaired,
    match_layout,
    unrecognised_images,
)
from derain.data.sources.pairs import Pair, group_by_scene, unique_keys
from derain.data.sources.selection import Naming, select
from derain.errors import DataError
from derain.storage import files


@dataclass(frozen=True)
class FoundPairs:
    """What a source contains of one split."""

    dataset: Dataset
    split: str
    layout: Layout
    pairs: list[Pair]
    unpaired: list[Unpaired]
    total: int
    """Number of pairs in the whole source, before a share was taken and leaks were left out."""
    leaked: list[Pair]
    """The pairs that were left out because another dataset has their clean images."""
    unrecognised: list[str]
    """Images that fit neither the layout nor the layout of another split."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What users of the dataset should know, such as a count that differs from the published.

        The manifest stores these texts: other words give a prepared dataset another identity.
        """
        return (
            *self._count_note(),
            *self._leak_note(),
            *self._format_notes(),
            *self._unrecognised_note(),
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
            return  # halves of side-by-side images are all written as PNG
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

    def _unrecognised_note(self) -> Iterator[str]:
        if self.unrecognised:
            yield (
                f"Images without a place in the layout {self.layout}, which were left out: "
                f"{len(self.unrecognised):,}, such as {self.unrecognised[0]}."
            )


def check_source(dataset: str, source: Path, split: str | None) -> None:
    """Raise DataError for an unknown dataset or split, or a source without any image."""
    _dataset_and_split(dataset, split)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder.")
    if not files.is_remote(source) and not any(map(is_image, files.walk(source))):
        hint = f"Run `derainctl datasets {dataset}` to see the expected layout"
        raise DataError(f"{source}: contains no image. {hint}.")  # before Ray is started


def find_pairs(
    dataset: str,
    source: Path,
    split: str | None = None,
    *,
    naming: Naming | None = None,
    share: tuple[float, float] = (0.0, 1.0),
    without: Collection[str] | None = None,
    clean_once: bool = False,
) -> FoundPairs:
    """The pairs of a split, in the order of their clean images.

    `split` defaults to the dataset's first. `share` selects a part of the clean images, with all
    of their rainy images: (0, 0.9) and (0.9, 1) have none in common. `without` lists clean files
    to leave out. With `clean_once` all pairs of a clean image are one sample. Raises DataError for
    an unknown dataset or split, and for a source that is missing or contains no pair.
    """
    row, chosen = _dataset_and_split(dataset, split)
    layouts = (naming.layout(row, chosen),) if naming else layouts_of(row, chosen)
    check_source(dataset, source, split)
    names, undecodable = _image_names(source)
    best = _best_match(layouts, row, source, names)
    unpaired = [*best.unpaired, *undecodable]
    if not best.pairs:
        raise _no_pairs_error(row, chosen, source, layouts, unpaired, names)
    kept, leaked = select(best.pairs, source, share, without or ())
    pairs = _with_keys(kept, best.layout)
    others = () if naming or row.any_split else [it for it in row.layouts if it.split != chosen]
    return FoundPairs(
        dataset=row,
        split=chosen,
        layout=best.layout,
        pairs=group_by_scene(pairs) if clean_once else pairs,
        unpaired=unpaired,
        total=len(best.pairs),
        leaked=_with_keys(leaked, best.layout),
        unrecognised=unrecognised_images(best, others, row, source, names),
    )


def count_pairs(dataset: Dataset, source: Path) -> dict[str, int]:
    """The number of pairs of each split in a folder, without splits that have none."""
    return _count_pairs(dataset, source, _image_names(source)[0])


def _count_pairs(dataset: Dataset, source: Path, names: Sequence[str]) -> dict[str, int]:
    counts = {
        split: len(_best_match(layouts_of(dataset, split), dataset, source, names).pairs)
        for split in dataset.splits
    }
    return {split: count for split, count in counts.items() if count}


def _dataset_and_split(dataset: str, split: str | None) -> tuple[Dataset, str]:
    row = CATALOGUE.get(dataset)
    if row is None:
        raise DataError(f"{dataset}: no such dataset. Known: {', '.join(CATALOGUE)}.")
    if split and split not in row.splits and not row.any_split:
        raise DataError(f"{dataset}: no such split {split!r}; it has {', '.join(row.splits)}.")
    if split and not re.fullmatch(r"\w+", split, re.ASCII):  # what Hugging Face takes as a name
        raise DataError(f"--split {split!r}: expected letters, digits and underscores.")
    return row, split or next(iter(row.splits))


def _best_match(
    layouts: Sequence[Layout], row: Dataset, source: Path, names: Sequence[str]
) -> LayoutMatch:
    """The match of the layout with the most pairs, the first of equals.

    If no layout has any, the one that fits the most names: what it lacks is the reason.
    """
    matches = [match_layout(layout, row, source, names) for layout in layouts]
    return max(matches, key=lambda it: (len(it.pairs), 0 if it.pairs else len(it.unpaired)))


def _image_names(source: Path) -> tuple[list[str], list[Unpaired]]:
    """The sorted names of all images below a folder, and those that are not valid UTF-8."""
    names = [name for name in files.walk(source) if is_image(name)]
    valid = [name for name in names if name.isascii() or _printable(name) == name]
    invalid = [] if len(valid) == len(names) else sorted(map(_printable, {*names} - {*valid}))
    return (
        sorted(valid, key=lambda name: (name.casefold(), name)),
        [Unpaired(name, "its name is not UTF-8: rename it") for name in invalid],
    )


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _with_keys(pairs: Iterable[MatchedPair], layout: Layout) -> list[Pair]:
    """Pairs with keys, in the order of the clean images: those of one scene are neighbours."""
    ordered = sorted(pairs, key=_scene_order)
    keys = unique_keys(pair.stem for pair in ordered)
    return [
        Pair(key, it.rain, it.clean, it.labels, layout.clean_half)
        for key, it in zip(keys, ordered, strict=True)
    ]


def _scene_order(pair: MatchedPair) -> tuple[str, str, str]:
    clean = pair.clean or ""
    return clean.casefold(), clean, pair.rain.casefold()


def _no_pairs_error(
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
    hint = "If the files have other names, give --rain and --clean (see `derainctl datasets`)"
    other_splits = {} if row.any_split else _count_pairs(row, source, names)
    other_splits.pop(split, None)
    if other_splits:
        other, count = max(other_splits.items(), key=lambda it: it[1])
        hint = f"It contains {count:,} pairs of the split {other}: give --split {other}"
    return DataError(
        f"{source}: contains no pair of {row.name}, split {split}. Expected one of\n  {expected}\n"
        f"found {found}. {hint}."
    )
