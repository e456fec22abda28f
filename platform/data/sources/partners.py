"""Which of several clean images belongs to which rainy one: the nearest in spelling.

Names are compared without case and in one Unicode form. Where that leaves more than one candidate,
the nearer spelling decides: the very same name first, then one that differs in its Unicode form,
then in case; and among those the same file ending first.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from unicodedata import normalize

from derain.data.images.kinds import ending
from derain.data.sources.layouts import Layout
from derain.data.sources.names import fold, stem
from derain.data.sources.patterns import Pattern

Fields = Mapping[str, str]
"""The fields of a file name as they are spelled."""

_Key = tuple[str, ...]


def _assign(
    rainy: Mapping[str, Fields], clean: Mapping[str, Fields]
) -> tuple[dict[str, str], set[str]]:
    """The clean name of each rainy name, and the rainy names that have several equally near.

    All names are candidates of each other. Each clean name is used once.
    """
    edges: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for name, fields in rainy.items():
        for other, others in clean.items():
            edges.setdefault(_distance(name, fields, other, others), []).append((name, other))
    found: dict[str, str] = {}
    unclear: set[str] = set()
    for distance in sorted(edges):
        used = {*found.values()}
        free = [it for it in edges[distance] if it[0] not in {*found, *unclear}]
        free = [it for it in free if it[1] not in used]
        offers = Counter(name for name, _ in free)
        wanted = Counter(other for _, other in free)
        for name, other in free:
            if offers[name] == wanted[other] == 1:
                found[name] = other
            else:
                unclear.add(name)
    return found, unclear


def _distance(name: str, fields: Fields, other: str, others: Fields) -> tuple[int, int]:
    """How much two names differ in spelling and in their endings; smaller is nearer."""
    shared = [key for key in fields if key in others]
    ours, theirs = [fields[key] for key in shared], [others[key] for key in shared]
    spelling = 2 - (_composed(ours) == _composed(theirs)) - (ours == theirs)
    if name[len(stem(name)) :] == other[len(stem(other)) :]:
        return spelling, 0
    return spelling, 1 if ending(name) == ending(other) else 2


def _composed(values: Sequence[str]) -> list[str]:
    return [normalize("NFC", value) for value in values]


def partners_of(
    rainy: Mapping[str, Fields], tables: Sequence["CleanTable"], none: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The clean name of each rainy name, or the reason why it has none."""
    groups: dict[_Key, list[str]] = {}
    for name, fields in rainy.items():
        groups.setdefault(_folded(fields.values()), []).append(name)
    partners: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for group in groups.values():
        clean = next((row for it in tables if (row := it.find(rainy[group[0]]))), {})
        if len(group) == len(clean) == 1:
            partners[group[0]] = next(iter(clean))
            continue
        found, unclear = _assign({name: rainy[name] for name in group}, clean)
        partners.update(found)
        owners = {it: name for name, it in found.items()}
        for name in group:
            if name in unclear:
                reasons[name] = "several files have this name up to its ending"
            elif name not in found:
                taken = next(iter(owners), None)
                reasons[name] = (
                    f"{taken} is the clean partner of {owners[taken]}" if taken else none
                )
    return partners, reasons


class CleanTable:
    """Clean images by the fields that their pattern has in common with the rainy one."""

    def __init__(self, rain: Pattern, clean: Pattern, layout: Layout, names: Sequence[str]) -> None:
        self._shared = [name for name in clean.fields if name in rain.fields]
        self._rows: dict[_Key, dict[str, Fields]] = {}
        for name, fields in fitting(clean, layout, names).items():
            self._rows.setdefault(self._key(fields), {})[name] = fields

    def find(self, fields: Fields) -> Mapping[str, Fields]:
        """The clean images that match the fields of a rainy one but for case, and their fields."""
        return self._rows.get(self._key(fields), {})

    @property
    def names(self) -> Iterator[str]:
        """All clean images."""
        return (name for row in self._rows.values() for name in row)

    def _key(self, fields: Fields) -> _Key:
        return _folded(fields[name] for name in self._shared)


def _folded(values: Iterable[str]) -> _Key:
    return tuple(map(fold, values))


def fitting(pattern: Pattern, layout: Layout, names: Sequence[str]) -> dict[str, Fields]:
    """The names that fit the pattern and the layout's `only`, with their fields as spelled."""
    fits = {name: fields for name in names if (fields := pattern.read(name)) is not None}
    if pattern.has_ending and _may_have_any_ending(layout):
        exact = {_folded(fields.values()) for fields in fits.values()}
        for name in names:
            fields = pattern.read(name, any_ending=True)
            if fields is not None and _folded(fields.values()) not in exact:
                fits[name] = fields
    if not layout.only:
        return dict(fits)
    return {
        name: fields
        for name, fields in fits.items()
        if all(int(fields[key]) in of for key, of in layout.only.items() if key in fields)
    }


def _may_have_any_ending(layout: Layout) -> bool:
    """False if rainy and clean names differ in nothing but their endings."""
    rain = fold(layout.rain_pattern.stem)
    return layout.any_ending and all(fold(it.stem) != rain for it in layout.clean_patterns)
