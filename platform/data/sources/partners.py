"""Which of several clean images belongs to which rainy one: the nearest in spelling.

Names are compared without case and in one Unicode form. Where that leaves more than one candidate,
the nearer spelling decides: the very same name first, then one that differs in its Unicode form,
then in case; and among those the same file ending first.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from unicodedata import normalize

from derain.data.images.decode import ending
from derain.data.sources.names import stem

Fields = Mapping[str, str]
"""The fields of a file name as they are spelled."""


def assign(
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
