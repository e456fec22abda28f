"""`prepare --strict`: everything that is left out of a dataset is reported at once, and refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from derain.data.prepared.manifest import Manifest, Quarantined
from derain.data.prepared.reading import read_pair
from derain.data.sources.names import printable
from derain.errors import DataError
from derain.pipelines.prepare.plan import Plan

SHOWN = 5
"""How many images a message names."""

MORE = "and {:,} more"


class StrictError(DataError):
    """`--strict` does not accept what is left out; `problems` lists all of it, for `--json`."""

    def __init__(self, message: str, problems: list[dict[str, str]]) -> None:
        super().__init__(message)
        self.problems = problems


def check(plan: Plan, lines: ray.ObjectRef, finished: Manifest | None) -> None:
    """Raise StrictError if the plan leaves anything out, or a dataset that is finished has.

    Then the images are inspected as well, so that the error names all problems at once.
    """
    quarantined = finished.quarantined if finished else plan.quarantined
    if not (quarantined or plan.left_out or plan.partial_labels):
        return
    if not finished:
        quarantined = (*quarantined, *_unusable(plan, lines))
    refuse(plan, quarantined)


def refuse(plan: Plan, quarantined: Sequence[Quarantined]) -> None:
    """Raise StrictError if anything is left out: quarantined, of no layout, or without a label."""
    texts = []
    if quarantined:
        texts.append(f"{len(quarantined)} images cannot be used (--strict). {listed(quarantined)}")
    for item in plan.left_out:
        examples = first([printable(name) for name in item.names], MORE)
        texts.append("\n  ".join([f"{item.what} (--strict): {len(item.names):,}.", *examples]))
    texts += [f"{note} (--strict)" for note in plan.partial_labels]
    if texts:
        problems = _problems(plan, quarantined)
        texts.append(f"--json lists all {len(problems):,} problems.")
        raise StrictError("\n".join([f"{plan.source}:", *texts]), problems)


def listed(quarantined: Sequence[Quarantined]) -> str:
    """The first quarantined images and their reasons, each on a line of its own."""
    lines = first(list(map(str, quarantined)), MORE)
    return "\n  ".join(["", *lines])


def first(lines: Sequence[str], more: str) -> list[str]:
    """The first lines; `more` is a format for how many others there are."""
    others = len(lines) - SHOWN
    return [*lines[:SHOWN], more.format(others)] if others > 0 else list(lines)


def _problems(plan: Plan, quarantined: Sequence[Quarantined]) -> list[dict[str, str]]:
    problems = [{"kind": "quarantined", "path": it.path, "reason": it.reason} for it in quarantined]
    for item in plan.left_out:
        problems += [
            {"kind": "left out", "path": printable(name), "reason": item.what}
            for name in item.names
        ]
    return problems + [
        {"kind": "labels", "path": "labels.json", "reason": note} for note in plan.partial_labels
    ]


def _unusable(plan: Plan, lines: ray.ObjectRef) -> list[Quarantined]:
    """The pairs whose images cannot be used; nothing is written."""
    inspect: Any = ray.remote(_inspect)
    shared = ray.put(plan)
    tasks = [inspect.remote(shared, lines, number) for number in range(len(plan))]
    return [item for found in ray.get(tasks) for item in found]


def _inspect(plan: Plan, lines: np.ndarray, number: int) -> list[Quarantined]:
    found = []
    for pair in plan.pairs_of(lines, number):
        try:
            read_pair(pair, plan.source, plan.reading)
        except DataError as error:
            found.append(Quarantined(pair.rain, str(error)))
    return found
