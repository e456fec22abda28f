"""The gallery of an evaluation: the chosen images, derained once more by every method."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from derain.evaluation.gallery import RAINY, SHOWN, GalleryImage, choose, write_gallery
from derain.evaluation.protocols import PROTOCOLS, quantised
from derain.pipelines.evaluate.measures import identity_of
from derain.pipelines.evaluate.work.records import Record, scores_of
from derain.pipelines.evaluate.work.run import Work
from derain.pipelines.evaluate.work.scorer import Scorer, Task, one_thread

Place = tuple[str, int]
"""An image: the dataset's name and its number in it."""


def write_evaluation_gallery(
    path: Path, task: Task, names: Sequence[str], records: Mapping[Work, Sequence[Record]]
) -> int:
    """Write the page, which calls the methods by `names`; returns how many images it has.

    Those that every method has scored and, of many, the ones that `choose` picks by the first
    metric of the first method.
    """
    scored = {
        (method, name, record.number): record
        for (method, name), items in records.items()
        for record in items
        if record.reason is None
    }
    places = [
        (name, number)
        for method, name, number in scored
        if method == 0
        and all((other, name, number) in scored for other in range(len(task.methods)))
    ]
    values = [_first_value(scored[0, *place]) for place in places]
    picked = [places[at] for at in choose(values, SHOWN)]
    return write_gallery(
        path,
        " and ".join(names),
        _images(task, names, scored, picked),
        count=len(picked) or 1,
        notes=[f"{len(picked)} of {len(places)} images. {_measured_by(task)}"],
    )


def _first_value(record: Record) -> float:
    return next(iter(record.values.values()))


def _measured_by(task: Task) -> str:
    names = dict.fromkeys(name for dataset in task.datasets for name in task.names_for(dataset))
    return f"Measured by: {', '.join(map(identity_of, names))}."


def _images(
    task: Task,
    names: Sequence[str],
    scored: Mapping[tuple[int, str, int], Record],
    picked: Sequence[Place],
) -> Iterator[GalleryImage]:
    with Scorer(task) as scorer:
        for name, number in picked:
            rain, clean = scorer.images(name)[number]
            key = scored[0, name, number].key
            first = task.names_for(name)[0]
            metrics = {RAINY: scores_of(scored[0, name, number], first).input}
            outputs: dict[str, np.ndarray] = {}
            for at, shown in enumerate(names):
                with one_thread():
                    levels = task.methods[at].levels(name, key, rain)
                outputs[shown] = quantised(levels, first if first in PROTOCOLS else "rain13k")
                metrics[shown] = scores_of(scored[at, name, number], first).metrics
            yield GalleryImage(name, key, rain, clean, outputs, metrics)
