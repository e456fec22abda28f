"""Match one layout against the file names in a folder: which of them form pairs."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from derain.data.sources.layouts import Dataset, Layout
from derain.data.sources.patterns import Pattern
from derain.errors import DataError

LABELS = "labels.json"
"""A file beside the images, {file name: {label: value}}, whose labels go into the samples."""


@dataclass(frozen=True, slots=True)
class Unpaired:
    """An image without a partner; `path` is relative to the source.

    The manifest stores the reason: other words give a prepared dataset another identity.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class LayoutMatch:
    """What a source contains in one layout."""

    layout: Layout
    """With the folder as spelled in the source; empty if the source is that folder itself."""
    pairs: list["MatchedPair"]
    unpaired: list[Unpaired]


@dataclass(frozen=True, slots=True)
class MatchedPair:
    """The files and labels of a pair; it has no key yet."""

    rain: str
    clean: str | None
    stem: str
    """The rainy name without its ending and without the folder that all rainy images share."""
    labels: Mapping[str, str]


def match_layout(layout: Layout, row: Dataset, source: Path, names: Sequence[str]) -> LayoutMatch:
    """Match one layout against the names of all images below a source.

    Raises DataError for a listing or a labels.json of another format.
    """
    prefix = _prefix(layout, row, source, names)
    if prefix is None:
        return LayoutMatch(layout, [], [])
    inside = _names_below(prefix, names)
    if layout.listing:
        pairs, unpaired = _pairs_of_listing(layout, source / prefix, inside)
    else:
        pairs, unpaired = _pairs_by_fields(layout, inside)
    labels = _read_labels(source / prefix)
    return LayoutMatch(
        replace(layout, folder=prefix.rstrip("/")),
        [_below(prefix, pair, labels) for pair in pairs] if prefix or labels else pairs,
        [Unpaired(prefix + item.path, item.reason) for item in unpaired],
    )


def unrecognised_images(
    match: LayoutMatch, others: Iterable[Layout], row: Dataset, source: Path, names: Sequence[str]
) -> list[str]:
    """The images that neither the match nor any of the other layouts accounts for."""
    used = {item.path for item in match.unpaired}
    used.update(name for it in match.pairs for name in (it.rain, it.clean) if name)
    rest = [name for name in names if name not in used]
    if not rest:
        return []
    for layout in others:
        prefix = _prefix(layout, row, source, names)
        if prefix is None:
            continue
        inside = _names_below(prefix, rest)
        for pattern in (layout.rain_pattern, *layout.clean_patterns):
            used.update(prefix + name for name in _fitting(pattern, layout, inside))
    return [name for name in rest if name not in used]


def _names_below(prefix: str, names: Iterable[str]) -> list[str]:
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def _prefix(layout: Layout, row: Dataset, source: Path, names: Sequence[str]) -> str | None:
    """The layout's folder as spelled on disk, with a slash at the end.

    Empty if the source has no such folder and so stands for it; None if, by its name, the source
    is the folder of another split.
    """
    folder = f"{layout.folder}/".casefold() if layout.folder else ""
    spelled = next((name for name in names if name[: len(folder)].casefold() == folder), None)
    if spelled is not None:
        return spelled[: len(folder)]
    folders = {split: set[str]() for split in row.splits}
    for other in row.layouts:
        folders[other.split].add(PurePosixPath(other.folder).name.casefold())
    own_name = source.resolve().name.casefold()
    is_other = any(own_name in there for split, there in folders.items() if split != layout.split)
    return None if is_other and own_name not in folders[layout.split] else ""


def _below(prefix: str, pair: MatchedPair, labels: Mapping[str, Mapping[str, str]]) -> MatchedPair:
    """The pair with names relative to the source, and with its labels from labels.json."""
    stem = _stem(pair.rain)
    own = labels.get(stem) or labels.get(stem.rpartition("/")[2], {})
    return replace(
        pair,
        rain=prefix + pair.rain,
        clean=None if pair.clean is None else prefix + pair.clean,
        labels={**pair.labels, **own},
    )


def _pairs_by_fields(
    layout: Layout, names: Sequence[str]
) -> tuple[list[MatchedPair], list[Unpaired]]:
    """Pairs of rainy and clean names whose common fields are equal."""
    rainy = _fitting(layout.rain_pattern, layout, names)
    if not layout.clean:
        half = layout.clean_half is not None
        return [_pair(layout, n, n if half else None, f) for n, f in rainy.items()], []
    tables = [
        _CleanTable(layout.rain_pattern, clean, layout, names) for clean in layout.clean_patterns
    ]
    uses = Counter(tuple(fields.values()) for fields in rainy.values())
    pairs, unpaired, used = [], [], set()
    for name, fields in rainy.items():
        partners = next((found for table in tables if (found := table.find(fields))), [])
        if len(partners) == 1 and uses[tuple(fields.values())] == 1:
            pairs.append(_pair(layout, name, partners[0], fields))
            used.add(partners[0])
        else:
            several = "several files have this name up to its ending"
            none = f"no clean partner {' or '.join(layout.clean)}"
            unpaired.append(Unpaired(name, several if partners else none))
    alone = {name for table in tables for names in table.rows.values() for name in names} - used
    unpaired += [Unpaired(name, f"no rainy partner {layout.rain}") for name in sorted(alone)]
    return pairs, unpaired


class _CleanTable:
    """Clean images by the fields that their pattern has in common with the rainy one."""

    def __init__(self, rain: Pattern, clean: Pattern, layout: Layout, names: Sequence[str]) -> None:
        self._shared = [name for name in clean.fields if name in rain.fields]
        self.rows: dict[tuple[str, ...], list[str]] = {}
        for name, fields in _fitting(clean, layout, names).items():
            self.rows.setdefault(self._key(fields), []).append(name)

    def find(self, fields: Mapping[str, str]) -> list[str]:
        """The clean images that match the fields of a rainy one."""
        return self.rows.get(self._key(fields), [])

    def _key(self, fields: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(fields[name] for name in self._shared)


def _fitting(pattern: Pattern, layout: Layout, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The names that fit the pattern and the layout's `only`, with their fields."""
    fits = {name: fields for name in names if (fields := pattern.match(name)) is not None}
    return {
        name: fields
        for name, fields in fits.items()
        if all(int(fields[key]) in of for key, of in layout.only.items() if key in fields)
    }


def _pair(layout: Layout, rain: str, clean: str | None, fields: Mapping[str, str]) -> MatchedPair:
    stem = _stem(rain[len(layout.rain_pattern.folder) :].strip("/"))
    return MatchedPair(rain, clean, stem, {name: fields[name] for name in layout.labels})


def _pairs_of_listing(
    layout: Layout, folder: Path, names: Sequence[str]
) -> tuple[list[MatchedPair], list[Unpaired]]:
    """Pairs from a text file: two names per line, which may start with `./` or `/`."""
    path = folder / str(layout.listing)
    if not path.is_file():
        return [], []
    existing, listed = set(names), set[str]()
    pairs, unpaired = [], []
    for number, line in enumerate(_read_lines(path), 1):
        pair = [name.removeprefix(".").lstrip("/") for name in line.split()]
        if not pair:
            continue
        if len(pair) != 2:
            raise DataError(f"{path}:{number}: expected `rainy clean`, found {line.strip()!r}.")
        missing = [name for name in pair if name not in existing]
        if pair[0] in listed:
            unpaired.append(Unpaired(pair[0], f"{path.name}:{number} names it once more"))
        elif missing:
            unpaired.append(Unpaired(pair[0], f"{path.name} names {missing[0]}, which is missing"))
        else:
            pairs.append(_pair(layout, pair[0], pair[1], {}))
        listed.add(pair[0])
    return pairs, unpaired


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8. Save the file as UTF-8.") from None


def _read_labels(folder: Path) -> dict[str, dict[str, str]]:
    """The labels of each image in labels.json, by its path below the folder or by its name alone.

    Both without the file ending. Empty without such a file.
    """
    path = folder / LABELS
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_bytes())
        entries = [(_stem(name.removeprefix("./")), of.items()) for name, of in tree.items()]
    except (ValueError, AttributeError):
        raise DataError(f"{path}: expected {{file name: {{label: value}}}}.") from None
    by_stem: dict[str, dict[str, str]] = {}
    for stem, items in entries:
        labels = {key: str(value) for key, value in items}
        if by_stem.setdefault(stem, labels) != labels:
            raise DataError(f"{path}: conflicting labels for {stem}: {by_stem[stem]} and {labels}.")
    return by_stem


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122
