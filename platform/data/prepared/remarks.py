"""Remarks on pairs that were written: what is unusual about each, counted by kind.

A remark's kind is a sentence without its full stop, such as "Images converted to sRGB". The
manifest records it in its notes: other words give a prepared dataset another identity.
"""

from collections.abc import Iterable, Mapping

Remarks = Mapping[str, tuple[int, str]]
"""For each kind how many pairs it applies to, and the rainy source image of the first of them."""


def joined(parts: Iterable[Remarks]) -> dict[str, tuple[int, str]]:
    """The remarks of several parts of a dataset, in its order: sums, and the first examples."""
    total: dict[str, tuple[int, str]] = {}
    for remarks in parts:
        for kind, (count, example) in remarks.items():
            before, first = total.get(kind, (0, example))
            total[kind] = before + count, first
    return total


def notes(remarks: Remarks) -> list[str]:
    """A sentence for each kind, in alphabetical order."""
    return [
        f"{kind}: {count:,}, such as {example}."
        for kind, (count, example) in sorted(remarks.items())
    ]
