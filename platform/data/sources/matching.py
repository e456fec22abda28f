"""Match one layout against the file names in a folder: which of them form pairs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from derain.data.sources.labels import Labels, read_labels
from derain.data.sources.layouts import Dataset, Layout
from derain.data.sources.names import fold, stem
from derain.data.sources.partners import CleanTable, Fields, fitting, partners_of
from derain.errors import DataError


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
    labels: tuple[Labels, ...] = ()
    """Every labels.json that was read, those of the folder itself first."""

    @property
    def files(self) -> list[str]:
        """The files that were read beside the images."""
        prefix = f"{self.layout.folder}/" if self.layout.folder else ""
        listing = [prefix + self.layout.listing] if self.layout.listing else []
        return [*listing, *(it.file for it in self.labels)]


@dataclass(frozen=True, slots=True)
class MatchedPair:
    """The files and labels of a pair; it has no key yet."""

    rain: str
    clean: str | None
    stem: str
    """The rainy name without its ending and without the folder that all rainy images share."""
    labels: Mapping[str, str]


def match_layout(layout: Layout, row: Dataset, source: Path, names: Sequence[str]) -> LayoutMatch:
    """Match one layout against the names of all images below a source; labels are not read yet.

    Raises DataError for a listing of another format.
    """
    prefix = folder_prefix(layout, row, source, names)
    if prefix is None:
        return LayoutMatch(layout, [], [])
    inside = _names_below(prefix, names)
    if layout.listing:
        pairs, unpaired = _pairs_of_listing(layout, source / prefix, inside)
    else:
        pairs, unpaired = _pairs_by_fields(layout, inside)
    return LayoutMatch(
        replace(layout, folder=prefix.rstrip("/")),
        [_below(prefix, pair) for pair in pairs] if prefix else pairs,
        [Unpaired(prefix + item.path, item.reason) for item in unpaired],
    )


def with_labels(match: LayoutMatch, source: Path) -> LayoutMatch:
    """The match with the labels of labels.json in the layout's folder, then of the source's own.

    Raises DataError for a labels.json of another format, or with labels that contradict each other.
    """
    folders = dict.fromkeys((match.layout.folder, ""))
    read = tuple(it for folder in folders if (it := read_labels(source, folder)) is not None)
    if not read:
        return match
    pairs = []
    for pair in match.pairs:
        own: dict[str, str] = {}
        for labels in reversed(read):
            folder = labels.file.rpartition("/")[0]
            own |= labels.of(pair.rain[len(folder) + 1 if folder else 0 :])
        pairs.append(replace(pair, labels={**pair.labels, **own}))
    return replace(match, pairs=pairs, labels=read)


def unrecognised_images(
    match: LayoutMatch, others: Iterable[Layout], row: Dataset, source: Path, names: Sequence[str]
) -> list[str]:
    """The images that neither the match nor any of the other layouts accounts for."""
    own = match.layout
    used = {item.path for item in match.unpaired}
    used.update(name for it in match.pairs for name in (it.rain, it.clean) if name)
    rest = [name for name in names if name not in used]
    if not rest:
        return []
    for layout in others:
        prefix = folder_prefix(layout, row, source, names)
        if prefix is None or replace(layout, split=own.split, folder=prefix.rstrip("/")) == own:
            continue
        inside = _names_below(prefix, rest)
        for pattern in (layout.rain_pattern, *layout.clean_patterns):
            used.update(prefix + name for name in fitting(pattern, layout, inside))
    return [name for name in rest if name not in used]


def folder_prefix(layout: Layout, row: Dataset, source: Path, names: Sequence[str]) -> str | None:
    """The layout's folder as spelled on disk, with a slash at the end.

    Empty if the source has no such folder and so stands for it; None if, by its name, the source
    is the folder of another split.
    """
    folder = fold(layout.folder)
    depth = folder.count("/") + 1
    if not folder:
        spelled = None
    else:
        spelled = next((it for name in names if fold(it := _top(name, depth)) == folder), None)
    if spelled is not None:
        return f"{spelled}/"
    folders = {split: set[str]() for split in row.splits}
    for other in row.layouts:
        folders[other.split].add(PurePosixPath(other.folder).name.casefold())
    own_name = source.resolve().name.casefold()
    is_other = any(own_name in there for split, there in folders.items() if split != layout.split)
    return None if is_other and own_name not in folders.get(layout.split, ()) else ""


def _top(name: str, depth: int) -> str:
    """The first folders of a name; empty if it is not that deep."""
    parts = name.split("/", depth)
    return "/".join(parts[:depth]) if len(parts) > depth else ""


def _names_below(prefix: str, names: Iterable[str]) -> list[str]:
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def _below(prefix: str, pair: "MatchedPair") -> "MatchedPair":
    """The pair with names relative to the source."""
    clean = None if pair.clean is None else prefix + pair.clean
    return replace(pair, rain=prefix + pair.rain, clean=clean)


def _pairs_by_fields(
    layout: Layout, names: Sequence[str]
) -> tuple[list[MatchedPair], list[Unpaired]]:
    """Pairs of rainy and clean names whose common fields are equal."""
    rainy = fitting(layout.rain_pattern, layout, names)
    if not layout.clean:
        half = layout.clean_half not in (None, "none")
        return [_pair(layout, n, n if half else None, f) for n, f in rainy.items()], []
    tables = [
        CleanTable(layout.rain_pattern, clean, layout, names) for clean in layout.clean_patterns
    ]
    partners, reasons = partners_of(rainy, tables, f"no clean partner {' or '.join(layout.clean)}")
    pairs = [_pair(layout, name, partners[name], rainy[name]) for name in rainy if name in partners]
    unpaired = [Unpaired(name, reasons[name]) for name in rainy if name in reasons]
    alone = {name for table in tables for name in table.names} - {*partners.values()}
    unpaired += [Unpaired(name, f"no rainy partner {layout.rain}") for name in sorted(alone)]
    return pairs, unpaired


def _pair(layout: Layout, rain: str, clean: str | None, fields: Fields) -> MatchedPair:
    short = stem(rain[len(layout.rain_pattern.folder) :].strip("/"))
    return MatchedPair(rain, clean, short, {name: fold(fields[name]) for name in layout.labels})


def _pairs_of_listing(
    layout: Layout, folder: Path, names: Sequence[str]
) -> tuple[list[MatchedPair], list[Unpaired]]:
    """Pairs from a text file: two names per line, which may start with `./` or `/`."""
    path = folder / str(layout.listing)
    if not path.is_file():
        return [], []
    existing, listed = set(names), set[str]()
    spelled = _by_folded_name(names)
    pairs, unpaired = [], []
    for number, line in enumerate(_read_lines(path), 1):
        pair = [name.removeprefix(".").lstrip("/") for name in line.split()]
        if not pair:
            continue
        if len(pair) != 2:
            raise DataError(f"{path}:{number}: expected `rainy clean`, found {line.strip()!r}.")
        pair = [name if name in existing else spelled.get(fold(name), name) for name in pair]
        missing = [name for name in pair if name not in existing]
        if pair[0] in listed:
            unpaired.append(Unpaired(pair[0], f"{path.name}:{number} names it once more"))
        elif missing:
            unpaired.append(Unpaired(pair[0], f"{path.name} names {missing[0]}, which is missing"))
        else:
            pairs.append(_pair(layout, pair[0], pair[1], {}))
        listed.add(pair[0])
    return pairs, unpaired


def _by_folded_name(names: Iterable[str]) -> dict[str, str]:
    """Names by their text without case and Unicode form, without those that this makes equal."""
    found: dict[str, str] = {}
    for name in names:
        key = fold(name)
        found[key] = "" if key in found else name
    return {key: name for key, name in found.items() if name}


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8. Save the file as UTF-8.") from None
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
