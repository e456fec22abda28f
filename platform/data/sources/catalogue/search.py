"""Which layouts of a dataset are tried in a source, and which of them fits best."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from derain.data.sources.catalogue import CATALOGUE
from derain.data.sources.catalogue.usual import split_key, split_of, usual_layouts
from derain.data.sources.layouts import Dataset, Layout, has_clean, layouts_of
from derain.data.sources.matching import LayoutMatch, match_layout
from derain.data.sources.names import fold

_IMAGES_COMPARED = 20_000
"""With more images than that a source is not compared with all of the catalogue."""


def layouts_for(
    row: Dataset, split: str, asked: str | None, names: Sequence[str]
) -> tuple[str, Sequence[Layout], list[Layout]]:
    """The split, its layouts, and those of other splits."""
    if not row.any_split:
        return split, layouts_of(row, split), [it for it in row.layouts if it.split != split]
    if not has_clean(row, split):
        return split, row.layouts, []
    by_split: dict[str | None, list[Layout]] = {}
    for layout in usual_layouts(names, split):
        by_split.setdefault(split_of(f"{layout.folder}/{layout.rain}"), []).append(layout)
    key = _chosen_split(split, asked, by_split)
    layouts = by_split.pop(key, [])
    split = key if key and not asked else split
    chosen = [replace(layout, split=split) for layout in layouts]
    return split, chosen or row.layouts, [it for rest in by_split.values() for it in rest]


def _chosen_split(split: str, asked: str | None, found: Collection[str | None]) -> str | None:
    """The split, as folders name it, whose layouts are taken; None for folders that name none."""
    key = split_key(split)
    if key in found and (asked or None not in found):
        return key
    if asked or None in found:
        return None
    return next((it for it in ("train", "val", "test") if it in found), None)


def repacked(row: Dataset, source: Path, names: Sequence[str], split: str) -> LayoutMatch | None:
    """Pairs of a published dataset in folders of usual names; None if there are none."""
    if not has_clean(row, split) or any(it.clean_half or it.only for it in layouts_of(row, split)):
        return None
    own = {split_key(split), fold(split)}
    is_own = len(row.splits) == 1 or not own.isdisjoint(
        (fold(source.resolve().name), split_of(source.resolve().name))
    )
    layouts = []
    for layout in usual_layouts(names, split):
        path = f"{layout.folder}/{layout.rain}"
        named = split_of(path)
        if named in own or own & {*fold(path).split("/")} or (named is None and is_own):
            layouts.append(layout)
    if not layouts:
        return None
    found = best_match(layouts, row, source, names)
    return found if found.pairs else None


def best_match(
    layouts: Sequence[Layout], row: Dataset, source: Path, names: Sequence[str]
) -> LayoutMatch:
    """The match of the layout with the most pairs, the first of equals.

    If no layout has any, the one that fits the most names: what it lacks is the reason.
    """
    matches = [match_layout(layout, row, source, names) for layout in layouts]
    return max(matches, key=lambda it: (len(it.pairs), 0 if it.pairs else len(it.unpaired)))


def counts_of_others(
    row: Dataset, split: str, source: Path, others: Sequence[Layout], names: Sequence[str]
) -> dict[str, int]:
    """The number of pairs of each other split."""
    by_split: dict[str, list[Layout]] = {}
    for layout in others:
        named = layout.split if not row.any_split else split_of(f"{layout.folder}/{layout.rain}")
        by_split.setdefault(named or split, []).append(layout)
    by_split.pop(split, None)
    counts = {}
    for other, its in by_split.items():
        best = best_match(its, row, source, names)
        if not best.pairs and not row.any_split:
            best = repacked(row, source, names, other) or best
        counts[other] = len(best.pairs)
    return counts


def known_layout(
    row: Dataset, source: Path, names: Sequence[str]
) -> tuple[Dataset, str, int] | None:
    """Another dataset and its split whose layout most of the images are in, and the pairs.

    None if there is no such, and for a source of very many images, where it would take long.
    """
    if len(names) > _IMAGES_COMPARED:
        return None
    found = [
        (other, split, match.pairs)
        for other in CATALOGUE.values()
        if not other.any_split and other.name != row.name
        for split in other.splits
        if (match := best_match(layouts_of(other, split), other, source, names)).pairs
    ]
    if not found:
        return None
    other, split, pairs = max(found, key=lambda it: len(it[2]))
    images = {name for pair in pairs for name in (pair.rain, pair.clean) if name}
    return (other, split, len(pairs)) if 2 * len(images) > len(names) else None
