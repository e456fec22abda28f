"""Find the pairs of a dataset in a folder, by the layouts that the catalogue lists for it."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from derain.data.sources import suggestions
from derain.data.sources.catalogue import find_dataset
from derain.data.sources.catalogue.own_layout import match_by_plugin, without_other_splits
from derain.data.sources.catalogue.search import (
    best_match,
    counts_of_others,
    known_layout,
    layouts_for,
    repacked,
)
from derain.data.sources.entries import (
    LABELS,
    Entries,
    Ignored,
    find_entries,
    has_image,
    is_system_folder,
)
from derain.data.sources.found import FoundPairs
from derain.data.sources.labels import complete
from derain.data.sources.layouts import Dataset, Layout, has_clean, layouts_of
from derain.data.sources.matching import (
    LayoutMatch,
    MatchedPair,
    Unpaired,
    unrecognised_images,
    with_labels,
)
from derain.data.sources.names import fold, printable
from derain.data.sources.pairs import Pair, group_by_scene, unique_keys
from derain.data.sources.selection import Naming, select
from derain.errors import DataError
from derain.storage import files

_SHAPES_SHOWN = 12


def check_source(dataset: str | Dataset, source: Path, split: str | None) -> None:
    """Raise DataError for an unknown dataset or split, or a source without any image."""
    row, _ = _dataset_and_split(dataset, split)
    try:
        if not source.is_dir():
            raise DataError(f"{source}: no such folder.")
    except PermissionError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}).") from None
    if files.is_remote(source) or has_image(source):
        return
    hint = f"Run `derainctl datasets {row.name}` to see the expected layout."
    left_out = [*map(str, find_entries(source).ignored()), hint]
    raise DataError(f"{source}: contains no image. {' '.join(left_out)}")  # before Ray is started


def find_pairs(
    dataset: str | Dataset,
    source: Path,
    split: str | None = None,
    *,
    naming: Naming | None = None,
    share: tuple[float, float] = (0.0, 1.0),
    without: Collection[str] | None = None,
    clean_once: bool = False,
) -> FoundPairs:
    """The pairs of a split, in the order of their clean images.

    `dataset` is a row or the name of one in the catalogue. `split` defaults to the dataset's first;
    for a folder of one's own, to the one that its sub-folders name. `share` selects a part of the
    clean images, with all of their rainy images: (0, 0.9) and (0.9, 1) have none in common.
    `without` lists clean files to leave out. With `clean_once` all pairs of a clean image are one
    sample. Raises DataError for an unknown dataset or split, and for a source that is missing or
    contains no pair, or has folders of the layout that cannot be read.
    """
    row, chosen = _dataset_and_split(dataset, split)
    check_source(row, source, split)
    entries = find_entries(source)
    chosen, best, others = _match(row, chosen, split, source, entries, naming)
    labels, partial = complete([pair.labels for pair in best.pairs])
    labelled = [replace(it, labels=own) for it, own in zip(best.pairs, labels, strict=True)]
    kept, leaked = select(labelled, source, share, without or ())
    pairs = _with_keys(kept, best.layout)
    unread_labels = _unread_labels(best, entries)
    alone = unrecognised_images(best, (), row, source, entries.images)
    unrecognised = alone
    if row.plugin:
        unrecognised = without_other_splits(row, chosen, entries.images, alone)
    elif others:
        unrecognised = unrecognised_images(best, others, row, source, entries.images)
    return FoundPairs(
        dataset=row,
        split=chosen,
        layout=best.layout,
        pairs=group_by_scene(pairs) if clean_once else pairs,
        unpaired=_unpaired(best, entries),
        total=len(best.pairs),
        leaked=_with_keys(leaked, best.layout),
        unrecognised=unrecognised,
        other_splits=sorted({*alone} - {*unrecognised}),
        ignored=(*entries.ignored(), *_ignored_labels(best, entries, unread_labels)),
        partial_labels=tuple(partial),
        quiet=tuple(entries.quiet_notes([*best.files, *unread_labels])),
    )


def _match(
    row: Dataset,
    split: str,
    asked: str | None,
    source: Path,
    entries: Entries,
    naming: Naming | None,
) -> tuple[str, LayoutMatch, Sequence[Layout]]:
    """The split, the pairs that were found, with their labels, and the layouts of other splits."""
    names = entries.images
    layouts: Sequence[Layout]
    others: Sequence[Layout] = ()
    if row.plugin:
        return split, _match_by_plugin(row, split, source, entries), ()
    if naming:
        layouts = (naming.layout(row, split),)
    else:
        split, layouts, others = layouts_for(row, split, asked, names)
    best = best_match(layouts, row, source, names)
    if not best.pairs and not naming and not row.any_split:
        best = repacked(row, source, names, split) or best
    _require_readable(source, entries, [best.layout] if best.pairs else layouts)
    if not best.pairs:
        unpaired = _unpaired(best, entries)
        raise _no_pairs_error(row, split, source, layouts, others, unpaired, entries)
    return split, with_labels(best, source), others


def _match_by_plugin(row: Dataset, split: str, source: Path, entries: Entries) -> LayoutMatch:
    """What a class of the user's finds, with labels; it has to see all images."""
    for folder, reason in entries.unreadable.items():
        raise DataError(
            f"{source}/{printable(folder)}: cannot be read ({reason}), and {row.plugin} may find "
            "images there. Make it readable, or give a SOURCE without it."
        )
    match = match_by_plugin(row, split, entries.images)
    if not match.pairs:
        found = suggestions.what_is_there(list(map(printable, entries.images))) or "no image"
        raise DataError(
            f"{source}: {row.plugin} finds no pair of the split {split}; found {found}."
        )
    return with_labels(match, source)


def _unpaired(match: LayoutMatch, entries: Entries) -> list[Unpaired]:
    """The images without a partner, and those whose names cannot be stored."""
    return [
        *match.unpaired,
        *(Unpaired(printable(name), NOT_UTF8) for name in entries.not_utf8),
    ]


def count_pairs(dataset: Dataset, source: Path) -> dict[str, int]:
    """The number of pairs of each split in a folder, without splits that have none.

    Raises DataError if the folder or one of a layout that was found in it cannot be read.
    """
    entries = find_entries(source, open_files=False)
    counts = {}
    for split in dataset.splits:
        best = best_match(layouts_of(dataset, split), dataset, source, entries.images)
        if best.pairs:
            _require_readable(source, entries, [best.layout])
            counts[split] = len(best.pairs)
    return counts


NOT_UTF8 = "its name is not UTF-8: rename it"


def _dataset_and_split(dataset: str | Dataset, split: str | None) -> tuple[Dataset, str]:
    row = find_dataset(dataset) if isinstance(dataset, str) else dataset
    if split and split not in row.splits and not row.any_split:
        raise DataError(f"{row.name}: no such split {split!r}; it has {', '.join(row.splits)}.")
    if split and not re.fullmatch(r"\w+", split, re.ASCII):  # what Hugging Face takes as a name
        raise DataError(f"--split {split!r}: expected letters, digits and underscores.")
    return row, split or next(iter(row.splits))


def _require_readable(source: Path, entries: Entries, layouts: Sequence[Layout]) -> None:
    """Raise DataError if a folder that may hold images of a layout cannot be read."""
    for folder, reason in entries.unreadable.items():
        if any(_may_hold_images(folder, layout) for layout in layouts):
            raise DataError(
                f"{source}/{printable(folder)}: cannot be read ({reason}), and the layout has "
                "images there. Make it readable, or give a SOURCE without it."
            )


def _may_hold_images(folder: str, layout: Layout) -> bool:
    """Whether a folder is in the folders of a layout, or one that its patterns describe."""
    prefix = f"{layout.folder}/" if layout.folder else ""
    path = fold(folder)
    for pattern in (layout.rain_pattern, *layout.clean_patterns):
        literal = fold(prefix + pattern.folder).strip("/")
        if literal and (path == literal or path.startswith(f"{literal}/")):
            return True
        if literal.startswith(f"{path}/"):
            return True
        if not is_system_folder(folder) and pattern.leads_to(folder.removeprefix(prefix)):
            return True
    return False


def _unread_labels(match: LayoutMatch, entries: Entries) -> list[str]:
    """Files that are called labels.json and are in another folder."""
    return [
        name
        for name in entries.others
        if fold(name.rpartition("/")[2]) == LABELS and name not in match.files
    ]


def _ignored_labels(match: LayoutMatch, entries: Entries, unread: Sequence[str]) -> list[Ignored]:
    """Entries of labels.json for no image, and label files that were not read."""
    found = [it for labels in match.labels for it in labels.unmatched(entries.images)]
    if unread:
        place = match.layout.folder or "SOURCE"
        what = f"Files with labels that were not read, because they are not in {place}"
        found.append(Ignored(what, tuple(unread)))
    return found


def _with_keys(pairs: Iterable[MatchedPair], layout: Layout) -> list[Pair]:
    """Pairs with keys, in the order of the clean images: those of one scene are neighbours."""
    ordered = sorted(pairs, key=_scene_order)
    keys = unique_keys(pair.stem for pair in ordered)
    return [
        Pair(key, it.rain, it.clean, it.labels, layout.clean_half)
        for key, it in zip(keys, ordered, strict=True)
    ]


def _scene_order(pair: MatchedPair) -> tuple[str, str, str, str]:
    clean = pair.clean or ""
    return clean.casefold(), clean, pair.rain.casefold(), pair.rain


def _no_pairs_error(
    row: Dataset,
    split: str,
    source: Path,
    layouts: Sequence[Layout],
    others: Sequence[Layout],
    unpaired: Sequence[Unpaired],
    entries: Entries,
) -> DataError:
    names = entries.images
    shapes = list(dict.fromkeys(map(_shape, layouts)))
    more = len(shapes) - _SHAPES_SHOWN
    shown = [*shapes[:_SHAPES_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    if row.any_split and has_clean(row, split):
        shown.append("or other usual names of folders, at any depth")
    expected = "\n  ".join(shown)
    found = suggestions.what_is_there(list(map(printable, names))) or "no image"
    if unpaired:
        found = f"{unpaired[0].path}: {unpaired[0].reason}; {found}"
    lines = [
        f"{source}: contains no pair of {row.name}, split {split}. Expected one of\n  {expected}",
        f"found {found}. {_hint(row, split, source, others, names)}",
        *_missing_lists(layouts, entries),
        *map(str, entries.ignored()),
    ]
    return DataError("\n".join(lines))


def _missing_lists(layouts: Sequence[Layout], entries: Entries) -> list[str]:
    """The text files that list the pairs and are not there."""
    files_there = {name.rpartition("/")[2] for name in entries.others}
    listings = {it.listing for it in layouts if it.listing}
    missing = sorted(listings - files_there)
    return [f"{name}, which lists the pairs, is missing." for name in missing]


def _shape(layout: Layout) -> str:
    """The patterns of a layout without its folder, for a message."""
    listed = f", as listed in {layout.listing}" if layout.listing else ""
    return " + ".join((layout.rain, *layout.clean)) + listed


def _hint(
    row: Dataset, split: str, source: Path, others: Sequence[Layout], names: Sequence[str]
) -> str:
    """What to do about a source without pairs of a split."""
    counts = counts_of_others(row, split, source, others, names)
    if any(counts.values()):
        other = max(counts, key=lambda it: counts[it])
        return f"It contains {counts[other]:,} pairs of the split {other}: give --split {other}."
    if has_clean(row, split):
        options = suggestions.suggest(row, source, split, names)
    else:
        options = suggestions.suggest_unpaired(names)
    taken = f"To take what is there: {options}" if options else ""
    if (not options or not row.any_split) and (known := known_layout(row, source, names)):
        dataset, its_split, pairs = known
        is_known = f"It has the layout of {dataset.name}, {its_split}, with {pairs:,} pairs"
        return f"{is_known}: prepare that. {taken or 'Or give --rain and --clean.'}"
    if options:
        return taken
    nearest = suggestions.nearest_layout(layouts_of(row, split), names)
    return (
        f"The nearest layout is {nearest}. If the files have other names, give --rain and --clean "
        "(see `derainctl datasets`)."
    )
