"""One layout and the names in a folder: which of them belong together."""

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
"""Beside the images: {file name: {label: value}}, carried into the samples."""


@dataclass(frozen=True, slots=True)
class Unpaired:
    """An image that has no partner; its name is below the source."""

    path: str
    reason: str


@dataclass(frozen=True)
class Matched:
    """What a layout finds in a source."""

    layout: Layout
    """Its folder as it is spelled there; none where the source is this folder itself."""
    couples: list["Couple"]
    unpaired: list[Unpaired]


@dataclass(frozen=True, slots=True)
class Couple:
    """A pair that has no key yet."""

    rain: str
    clean: str | None
    stem: str
    """The rainy name without ending and without the folder that all have in common."""
    labels: Mapping[str, str]


def match(layout: Layout, row: Dataset, source: Path, names: Sequence[str]) -> Matched:
    """What one layout finds among the names of all images below a source.

    Raises DataError for a list or a labels.json that cannot be understood.
    """
    prefix = _prefix(layout, row, source, names)
    if prefix is None:
        return Matched(layout, [], [])
    inside = _inside(prefix, names)
    joined = _listed(layout, source / prefix, inside) if layout.listing else _joined(layout, inside)
    couples, unpaired = joined
    labels = _labels(source / prefix)
    return Matched(
        replace(layout, folder=prefix.rstrip("/")),
        [_below(prefix, couple, labels) for couple in couples] if prefix or labels else couples,
        [Unpaired(prefix + item.path, item.reason) for item in unpaired],
    )


def strangers(
    matched: Matched, others: Iterable[Layout], row: Dataset, source: Path, names: Sequence[str]
) -> list[str]:
    """The images that a match passes over and that are not in the place of other layouts."""
    used = {item.path for item in matched.unpaired}
    used.update(name for it in matched.couples for name in (it.rain, it.clean) if name)
    rest = [name for name in names if name not in used]
    for layout in others if rest else ():
        prefix = _prefix(layout, row, source, names)
        if prefix is None:
            continue
        inside = _inside(prefix, rest)
        for pattern in (layout.rain_pattern, *layout.clean_patterns):
            used.update(prefix + name for name in _fitting(pattern, layout, inside))
    return [name for name in rest if name not in used]


def _inside(prefix: str, names: Iterable[str]) -> list[str]:
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def _prefix(layout: Layout, row: Dataset, source: Path, names: Sequence[str]) -> str | None:
    """The layout's folder as it is spelled on disk, with a slash at the end.

    The source itself where it has no such folder, unless it is called like that of another split.
    """
    wanted = f"{layout.folder}/".casefold() if layout.folder else ""
    spelled = next((name for name in names if name[: len(wanted)].casefold() == wanted), None)
    if spelled is not None:
        return spelled[: len(wanted)]
    places = {split: set[str]() for split in row.splits}
    for other in row.layouts:
        places[other.split].add(PurePosixPath(other.folder).name.casefold())
    here = source.resolve().name.casefold()
    elsewhere = any(here in found for split, found in places.items() if split != layout.split)
    return None if elsewhere and here not in places[layout.split] else ""


def _below(prefix: str, couple: Couple, labels: Mapping[str, Mapping[str, str]]) -> Couple:
    """The couple with names below the source, and with what labels.json says of it."""
    stem = _stem(couple.rain)
    own = labels.get(stem) or labels.get(stem.rpartition("/")[2], {})
    return replace(
        couple,
        rain=prefix + couple.rain,
        clean=None if couple.clean is None else prefix + couple.clean,
        labels={**couple.labels, **own},
    )


def _joined(layout: Layout, names: Sequence[str]) -> tuple[list[Couple], list[Unpaired]]:
    """Rainy and clean names whose common fields are equal."""
    rainy = _fitting(layout.rain_pattern, layout, names)
    if not layout.clean:
        half = layout.clean_half is not None
        return [_couple(layout, n, n if half else None, f) for n, f in rainy.items()], []
    tables = [_Table(layout.rain_pattern, clean, layout, names) for clean in layout.clean_patterns]
    twice = Counter(tuple(fields.values()) for fields in rainy.values())
    couples, unpaired, used = [], [], set()
    for name, fields in rainy.items():
        partners = next((found for table in tables if (found := table.find(fields))), [])
        if len(partners) == 1 and twice[tuple(fields.values())] == 1:
            couples.append(_couple(layout, name, partners[0], fields))
            used.add(partners[0])
        else:
            several = "several files have this name up to its ending"
            none = f"no clean partner {' or '.join(layout.clean)}"
            unpaired.append(Unpaired(name, several if partners else none))
    alone = {name for table in tables for names in table.rows.values() for name in names} - used
    unpaired += [Unpaired(name, f"no rainy partner {layout.rain}") for name in sorted(alone)]
    return couples, unpaired


class _Table:
    """Clean images by the fields that they share with the rainy ones."""

    def __init__(self, rain: Pattern, clean: Pattern, layout: Layout, names: Sequence[str]) -> None:
        self._shared = [name for name in clean.fields if name in rain.fields]
        self.rows: dict[tuple[str, ...], list[str]] = {}
        for name, fields in _fitting(clean, layout, names).items():
            self.rows.setdefault(self._key(fields), []).append(name)

    def find(self, fields: Mapping[str, str]) -> list[str]:
        """The clean images of a rainy one."""
        return self.rows.get(self._key(fields), [])

    def _key(self, fields: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(fields[name] for name in self._shared)


def _fitting(pattern: Pattern, layout: Layout, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The names that fit, with their fields."""
    fits = {name: fields for name in names if (fields := pattern.match(name)) is not None}
    return {
        name: fields
        for name, fields in fits.items()
        if all(int(fields[key]) in of for key, of in layout.only.items() if key in fields)
    }


def _couple(layout: Layout, rain: str, clean: str | None, fields: Mapping[str, str]) -> Couple:
    stem = _stem(rain[len(layout.rain_pattern.folder) :].strip("/"))
    return Couple(rain, clean, stem, {name: fields[name] for name in layout.labels})


def _listed(
    layout: Layout, folder: Path, names: Sequence[str]
) -> tuple[list[Couple], list[Unpaired]]:
    """Pairs as a text file names them: two names a line, with `./` or `/` before them."""
    path = folder / str(layout.listing)
    if not path.is_file():
        return [], []
    there, listed = set(names), set[str]()
    couples, unpaired = [], []
    for number, line in enumerate(_lines(path), 1):
        pair = [name.removeprefix(".").lstrip("/") for name in line.split()]
        if not pair:
            continue
        if len(pair) != 2:
            raise DataError(f"{path}:{number}: expected `rainy clean`, found {line.strip()!r}.")
        missing = [name for name in pair if name not in there]
        if pair[0] in listed:
            unpaired.append(Unpaired(pair[0], f"{path.name}:{number} names it once more"))
        elif missing:
            unpaired.append(Unpaired(pair[0], f"{path.name} names {missing[0]}, which is missing"))
        else:
            couples.append(_couple(layout, pair[0], pair[1], {}))
        listed.add(pair[0])
    return couples, unpaired


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8. Save it as such.") from None


def _labels(folder: Path) -> dict[str, dict[str, str]]:
    """What labels.json says of each image, by its place below the folder or by its name alone.

    Both without the file ending. Nothing where there is no such file.
    """
    path = folder / LABELS
    if not path.is_file():
        return {}
    try:
        named = json.loads(path.read_bytes())
        said = [(_stem(name.removeprefix("./")), of.items()) for name, of in named.items()]
    except (ValueError, AttributeError):
        raise DataError(f"{path}: expected {{file name: {{label: value}}}}.") from None
    found: dict[str, dict[str, str]] = {}
    for stem, items in said:
        labels = {key: str(value) for key, value in items}
        if found.setdefault(stem, labels) != labels:
            raise DataError(f"{path}: {stem} has two labels: {found[stem]} and {labels}.")
    return found


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122
