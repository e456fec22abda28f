"""`evaluate`: a model's metrics on prepared datasets, per image, and those of the rainy input."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from derain.config.data import DataConfig
from derain.data.images.decode import encode_png
from derain.data.loading.cache import Pixels
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.data.prepared.naming import distinct_names
from derain.errors import DataError, DerainError
from derain.evaluation.gallery import best_and_worst, grid
from derain.evaluation.protocols import check_protocol
from derain.evaluation.scorecard import GalleryImages, markdown
from derain.evaluation.scoring import DatasetScores, score_under_protocols
from derain.inference.predictor import Predictor
from derain.pipelines.load_model import load_predictor
from derain.storage.output_paths import check_file

log = logging.getLogger(__name__)

SHOWN = 2
"""How many of the best and of the worst images a report shows."""
NAME_CHARACTERS = 100
"""Of a dataset's name in the name of an image file, which may have 255 bytes in all."""


@dataclass(frozen=True)
class _Scored:
    """A dataset of which at least one image was scored."""

    dataset: Prepared
    pixels: Pixels
    described: dict[str, Any]


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

    An image that cannot be scored, or a dataset that cannot be read, is listed under `left_out`,
    and the others are scored. Raises DataError, before anything is scored, for a path that is not a
    prepared dataset of pairs; DerainError if no image could be scored.
    """
    for protocol in protocols:
        check_protocol(protocol)
    if report:
        check_file(Path(report))
    datasets = _open_all(prepared)
    predictor = load_predictor(model, device, trust=trust, stride=stride)
    scored, left_out = _score_all(predictor, datasets, protocols)
    path = Path(report).absolute() if report else None
    result = {
        "model": model,
        "protocols": list(protocols),
        "datasets": [item.described for item in scored],
        "left_out": left_out,
        "report": str(path) if path else None,
    }
    if path:
        _write_report(path, result, predictor, scored)
    return result


def _open_all(folders: Sequence[str]) -> dict[str, Prepared]:
    """The datasets by distinct names. Raises DataError that names every one that cannot be used."""
    opened, problems = {}, []
    for name, folder in zip(distinct_names(folders), folders, strict=True):
        try:
            opened[name] = open_prepared(folder)
            opened[name].require_clean()
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))
    return opened


def _score_all(
    predictor: Predictor, datasets: Mapping[str, Prepared], protocols: Sequence[str]
) -> tuple[list[_Scored], list[dict[str, Any]]]:
    """The datasets with their scores, and what was left out: dataset, key (or None) and reason."""
    scored: list[_Scored] = []
    left_out: list[dict[str, Any]] = []
    for name, dataset in datasets.items():
        try:
            (pixels,) = open_all_pixels([dataset], DataConfig.model_validate({}))
            scores = score_under_protocols(
                predictor.levels, dataset, pixels, protocols, name=name, leave_out=True
            )
        except DerainError as error:
            if len(datasets) == 1:
                raise
            left_out.append({"dataset": name, "key": None, "reason": str(error)})
            continue
        described = _describe(dataset, scores)
        left_out += [{"dataset": name, **image} for image in described["left_out"]]
        scored.append(_Scored(dataset, pixels, described))
    if not scored:
        reasons = "\n".join(item["reason"] for item in left_out)
        raise DerainError(f"No dataset could be scored.\n{reasons}")
    return scored, left_out


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
    path: Path, result: Mapping[str, Any], predictor: Predictor, scored: Sequence[_Scored]
) -> None:
    """Write the Markdown file, and its images into a folder beside it."""
    shown = []
    for number, item in enumerate(scored):
        images = item.described["per_picture"]
        picks = best_and_worst(images, SHOWN)
        numbers = {key: at for at, key in enumerate(item.dataset.column("key").tolist())}
        rows = [numbers[images[pick]["key"]] for pick in picks]  # some images may be left out
        name = f"{path.stem}_images/{number:02d}-{_file_name(item.described['name'])}.png"
        shown.append(GalleryImages(name, tuple(picks)))
        file = path.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(grid([predictor.derain], item.pixels, rows)))
    path.write_text(markdown(result, shown), encoding="utf-8")


def _file_name(name: str) -> str:
    """A dataset's name as part of a file name: also of `a/test`, and of one that is very long."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    return kept.encode()[-NAME_CHARACTERS:].decode(errors="ignore")
