"""A network's figures on prepared datasets, picture by picture, beside those of the rainy input."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from derain import checkpoint
from derain.building import restore_network
from derain.config.training import DataConfig
from derain.data.cache import Pixels
from derain.data.loader import open_all
from derain.data.manifest import Prepared, open_prepared
from derain.data.pictures import encode_png
from derain.device import device_named
from derain.errors import UsageError
from derain.exported import is_exported, load_exported
from derain.metrics import check_protocol, quantised, score
from derain.pipelines.places import check_file
from derain.pipelines.scorecard import Shown, markdown
from derain.predictor import Predictor, load_model_folder
from derain.tracking import registry

log = logging.getLogger(__name__)

Derain = Callable[[np.ndarray], np.ndarray]
"""Rainy picture, uint8 HWC RGB -> clean: uint8, or for scores its levels before rounding."""
METRICS = ("psnr_y", "ssim_y")
SHOWN = 2
"""How many of the best pictures a report shows, and of the worst."""


@dataclass(frozen=True)
class PictureScores:
    """One picture: what the network made of it, and what it was given."""

    key: str
    metrics: dict[str, float]
    input: dict[str, float]


@dataclass(frozen=True)
class DatasetScores:
    """Means over the pictures of one dataset."""

    name: str
    manifest_sha256: str
    pictures: int
    metrics: dict[str, float]
    input: dict[str, float]
    per_picture: list[PictureScores] = field(repr=False)


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

    A network runs once for all `protocols`; `metrics` are those of the first. `report` is a
    Markdown file to write, beside it a folder with the best and the worst pictures of each dataset,
    as the first protocol sees it. The other arguments are those of `load_predictor`.
    """
    for protocol in protocols:
        check_protocol(protocol)
    if report:
        check_file(Path(report))
    network = load_predictor(model, device, trust=trust, stride=stride)
    datasets = [open_prepared(folder) for folder in prepared]
    pixels = open_all(datasets, DataConfig.model_validate({}))
    scores = [
        _by_protocol(network.levels, dataset, pairs, protocols)
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
        _write_report(path, result, network, pixels)
    return result


def _write_report(
    path: Path, result: Mapping[str, Any], network: Predictor, pixels: Sequence[Pixels]
) -> None:
    """The Markdown file at `path`, and the pictures that it shows in a folder of its name."""
    shown = []
    for number, (item, pairs) in enumerate(zip(result["datasets"], pixels, strict=True)):
        picks = best_and_worst(item["per_picture"], SHOWN)
        name = f"{path.stem}_pictures/{number:02d}-{item['name']}.png"
        shown.append(Shown(name, tuple(picks)))
        picture = path.parent / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(encode_png(_grid([network.derain], pairs, picks)))
    path.write_text(markdown(result, shown), encoding="utf-8")


def _by_protocol(
    levels: Derain, dataset: Prepared, pixels: Pixels, protocols: Sequence[str]
) -> dict[str, Any]:
    """The scores of a dataset by the first protocol, as `DatasetScores`, with the means by each."""
    keys = dataset.column("key").tolist()
    table: dict[str, list[PictureScores]] = {protocol: [] for protocol in protocols}
    for at, key in enumerate(keys):
        pair = pixels[at]
        found = levels(pair[0])
        for protocol, scores in table.items():
            scores.append(_score_picture(found, key, pair, protocol))
    means = {name: _means(dataset, scores) for name, scores in table.items()}
    return {
        **asdict(means[protocols[0]]),
        "dataset": dataset.manifest.dataset,
        "split": dataset.manifest.split,
        "by_protocol": {
            name: {"metrics": item.metrics, "input": item.input} for name, item in means.items()
        },
    }


def load_predictor(
    model: str,
    device: str = "auto",
    *,
    trust: bool = False,
    stride: int | None = None,
) -> Predictor:
    """The predictor of a model: models:/NAME@alias, models:/NAME/VERSION, runs:/ID/model, a
    checkpoint or model folder, or an exported file (.onnx, .pt2, TorchScript).

    `device` is `auto`, `cpu` or `cuda`; exported files run on the CPU. `trust` allows what may run
    code: .pt2, TorchScript, networks of a class of the user's. `stride` is for exported files that
    do not say theirs.

    Raises UsageError for `cuda` where there is none, and with an exported file.
    """
    computes_on = device_named(device)
    if is_exported(model):
        if device == "cuda":
            raise UsageError(f"{model}: exported files run on the CPU; give --device cpu or auto.")
        return Predictor(load_exported(model, trust=trust, stride=stride), "cpu")
    if model.startswith(("models:/", "runs:/")):
        return Predictor(load_model_folder(registry.model_folder(model), trust=trust), computes_on)
    if (Path(model) / checkpoint.STATE).is_file():
        return Predictor(restore_network(checkpoint.load(model), trust=trust), computes_on)
    return Predictor(load_model_folder(model, trust=trust), computes_on)


def score_dataset(
    derain: Derain, dataset: Prepared, pixels: Pixels, protocol: str
) -> DatasetScores:
    """Scores of every picture of a dataset and their means."""
    keys = dataset.column("key").tolist()
    scores = [
        _score_picture(derain(pixels[at][0]), key, pixels[at], protocol)
        for at, key in enumerate(keys)
    ]
    return _means(dataset, scores)


def _means(dataset: Prepared, scores: list[PictureScores]) -> DatasetScores:
    return DatasetScores(
        name=f"{dataset.folder.name}",
        manifest_sha256=dataset.manifest.sha256(),
        pictures=len(scores),
        metrics={name: fmean(item.metrics[name] for item in scores) for name in METRICS},
        input={name: fmean(item.input[name] for item in scores) for name in METRICS},
        per_picture=scores,
    )


def overall(scores: Sequence[DatasetScores]) -> tuple[dict[str, float], dict[str, float]]:
    """(metrics, input): the plain mean of the datasets' means, as the papers' Average is."""
    return (
        {name: fmean(item.metrics[name] for item in scores) for name in METRICS},
        {name: fmean(item.input[name] for item in scores) for name in METRICS},
    )


def gallery(networks: Sequence[Derain], pixels: Pixels, count: int) -> np.ndarray:
    """A grid of rain | what each network makes of it | clean, one picture a row: uint8 HWC RGB.

    The pictures are spread evenly over the dataset; smaller ones are padded with white.
    """
    picks = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(int)
    return _grid(networks, pixels, picks.tolist())


def best_and_worst(scores: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """The numbers of the `count` pictures with the highest PSNR-Y, best first, and of as many with
    the lowest, worst last; every picture once where there are fewer."""
    order = sorted(range(len(scores)), key=lambda at: -scores[at]["metrics"]["psnr_y"])
    return order if len(order) <= 2 * count else order[:count] + order[-count:]


def _grid(networks: Sequence[Derain], pixels: Pixels, picks: Sequence[int]) -> np.ndarray:
    rows = []
    for pick in picks:
        rain, clean = pixels[pick]
        derained = [derain(rain) for derain in networks]
        rows.append(np.concatenate(_spaced([rain, *derained, clean], axis=1), axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    return np.concatenate(_spaced(padded, axis=0), axis=0)


def _score_picture(levels: np.ndarray, key: str, pair: np.ndarray, protocol: str) -> PictureScores:
    rain, clean = pair
    derained = quantised(levels, protocol)
    after, before = score(derained, clean, protocol), score(rain, clean, protocol)
    return PictureScores(
        key=key,
        metrics={name: getattr(after, name) for name in METRICS},
        input={name: getattr(before, name) for name in METRICS},
    )


def _spaced(pictures: Sequence[np.ndarray], axis: int) -> list[np.ndarray]:
    """The pictures with a white line between them."""
    shape = list(pictures[0].shape)
    shape[axis] = 4
    gap = np.full(shape, 255, np.uint8)
    return [part for picture in pictures for part in (gap, picture)][1:]
