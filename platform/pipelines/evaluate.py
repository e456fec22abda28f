"""`evaluate`: a model's metrics on prepared datasets, per image, and those of the rainy input."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from derain.config.data import DataConfig
from derain.data.images.decode import encode_png
from derain.data.loading.cache import Pixels
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.evaluation.gallery import best_and_worst, grid
from derain.evaluation.protocols import check_protocol
from derain.evaluation.scorecard import GalleryImages, markdown
from derain.evaluation.scoring import DatasetScores, score_under_protocols
from derain.inference.predictor import Predictor
from derain.pipelines.load_model import load_predictor
from derain.storage.output_paths import check_file

SHOWN = 2
"""How many of the best and of the worst images a report shows."""


def evaluate(
    model: str,
    prepared: Sequence[str],
    *,
    protocols: Sequence[str] = ("rain13k",),
    report: str | Path | None = None,
    device: str = "auto",
    trust: bool = False,
    stride: int | None = None,
) -> dict[str, Any]:
    """Score a model on prepared datasets; returns what `derainctl evaluate --json` prints.

    The model runs once for all `protocols`; `metrics` are those of the first. `report` is a
    Markdown file to write, with a folder of the best and the worst images of each dataset under the
    first protocol. The other arguments are those of `load_predictor`.
    """
    for protocol in protocols:
        check_protocol(protocol)
    if report:
        check_file(Path(report))
    predictor = load_predictor(model, device, trust=trust, stride=stride)
    datasets = [open_prepared(folder) for folder in prepared]
    pixels = open_all_pixels(datasets, DataConfig.model_validate({}))
    scores = [
        _describe(dataset, score_under_protocols(predictor.levels, dataset, pairs, protocols))
        for dataset, pairs in zip(datasets, pixels, strict=True)
    ]
    path = Path(report).absolute() if report else None
    result = {
        "model": model,
        "protocols": list(protocols),
        "datasets": scores,
        "report": str(path) if path else None,
    }
    if path:
        _write_report(path, result, predictor, pixels)
    return result


def _describe(dataset: Prepared, scores: Mapping[str, DatasetScores]) -> dict[str, Any]:
    """The scores of a dataset under the first protocol, and the means under each."""
    first = next(iter(scores.values()))
    return {
        **asdict(first),
        "dataset": dataset.manifest.dataset,
        "split": dataset.manifest.split,
        "by_protocol": {
            name: {"metrics": item.metrics, "input": item.input} for name, item in scores.items()
        },
    }


def _write_report(
    path: Path, result: Mapping[str, Any], predictor: Predictor, pixels: Sequence[Pixels]
) -> None:
    """Write the Markdown file, and its images into a folder beside it."""
    shown = []
    for number, (item, pairs) in enumerate(zip(result["datasets"], pixels, strict=True)):
        picks = best_and_worst(item["per_picture"], SHOWN)
        name = f"{path.stem}_images/{number:02d}-{item['name']}.png"
        shown.append(GalleryImages(name, tuple(picks)))
        image = path.parent / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(encode_png(grid([predictor.derain], pairs, picks)))
    path.write_text(markdown(result, shown), encoding="utf-8")
