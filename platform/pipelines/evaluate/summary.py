"""The records of the images of a dataset -> its means and the images that were left out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from derain.data.prepared.manifest import Prepared
from derain.errors import DerainError
from derain.evaluation.protocols import identity
from derain.evaluation.scoring import DatasetScores, UnscoredImage, with_means
from derain.pipelines.evaluate.records import Record, scores_of


def summary(
    name: str, dataset: Prepared, records: Sequence[Record], protocols: Sequence[str]
) -> dict[str, Any]:
    """The metrics of a dataset under the first protocol with those of each image, and the means
    under each protocol.

    Records are taken in the dataset's order, whichever order they came in, so that the means have
    the same bits. Raises DerainError if none of its images was scored.
    """
    ordered = sorted(records, key=lambda record: record.number)
    left_out = [UnscoredImage(it.key, it.reason) for it in ordered if it.reason is not None]
    if len(left_out) == len(ordered):
        reason = left_out[0].reason if left_out else "it has no pairs"
        raise DerainError(f"{dataset.folder}: no image of it could be scored: {reason}")
    scores: dict[str, DatasetScores] = {}
    for protocol in protocols:
        images = [scores_of(record, protocol) for record in ordered if record.reason is None]
        scores[protocol] = with_means(name, dataset, images, left_out)
    return _described(dataset, scores)


def _described(dataset: Prepared, scores: Mapping[str, DatasetScores]) -> dict[str, Any]:
    first = next(iter(scores.values()))
    return {
        **asdict(first),
        "dataset": dataset.manifest.dataset,
        "split": dataset.manifest.split,
        "by_protocol": {
            name: {"identity": identity(name), "metrics": item.metrics, "input": item.input}
            for name, item in scores.items()
        },
    }
