"""The Markdown report of an evaluation, with the best and the worst images of each dataset."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from derain.config.data import DataConfig
from derain.data.images.decode import encode_png
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared
from derain.evaluation.downstream import SIDES
from derain.evaluation.gallery import best_and_worst, grid
from derain.evaluation.no_reference import METRICS
from derain.evaluation.scoring import Derain
from derain.evaluation.tables.report import GalleryImages, markdown

SHOWN = 2
"""How many of the best and of the worst images a report shows."""
NAME_CHARACTERS = 100
"""Of a dataset's name in the name of an image file, which may have 255 bytes in all."""


def write_report(
    path: Path, result: Mapping[str, Any], derain: Derain | None, datasets: Mapping[str, Prepared]
) -> None:
    """Write the Markdown file, and its images into a folder beside it; without a model none."""
    shown = []
    for number, item in enumerate(result["datasets"] if derain else ()):
        if item["protocol"] in METRICS:
            shown.append(GalleryImages("", ()))
            continue
        dataset, images = datasets[item["name"]], item["per_picture"]
        picks = best_and_worst(images, SHOWN)
        numbers = {key: at for at, key in enumerate(dataset.column("key").tolist())}
        rows = [numbers[images[pick]["key"]] for pick in picks]  # some images may be left out
        name = f"{images_of(path).name}/{number:02d}-{_file_name(item['name'])}.png"
        shown.append(GalleryImages(name, tuple(picks)))
        file = path.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (pixels,) = open_all_pixels([dataset], DataConfig.model_validate({}))
        file.write_bytes(encode_png(grid([derain] if derain else [], pixels, rows)))
    lines = [line for item in result["datasets"] for line in _more(item)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(result, shown) + "".join(lines), encoding="utf-8")


def images_of(report: Path) -> Path:
    """The folder with the images of a report."""
    return report.parent / f"{report.stem}_images"


def _more(item: Mapping[str, Any]) -> Iterator[str]:
    """Sections on NIQE, BRISQUE and LPIPS, and on what a detector or segmenter finds."""
    single = {name: it for name, it in item["by_protocol"].items() if name in it["metrics"]}
    if single:
        yield f"\n## {item['name']}: further metrics\n\nLower is better.\n\n"
        yield "| metric | derained | rainy |\n| --- | ---: | ---: |\n"
        for name, found in single.items():
            values = f"{found['metrics'][name]:.3f} | {found['input'][name]:.3f}"
            yield f"| {found['identity']} | {values} |\n"
    found = item["downstream"]
    if found:
        yield f"\n## {item['name']}: {found['kind']}\n\n"
        if found["kind"] == "detection":
            yield f"Truth: {found['clean']['detections']} {found['truth']}.\n\n"
        else:
            yield "Truth: the classes of the clean images.\n\n"
        names = [name for name in found["derained"] if name != "detections"]
        yield f"| image | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}\n"
        for side in SIDES:
            yield f"| {side} | {' | '.join(_number(found[side][name]) for name in names)} |\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _file_name(name: str) -> str:
    """A dataset's name as part of a file name: also of `a/test`, and of one that is very long."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    return kept.encode()[-NAME_CHARACTERS:].decode(errors="ignore")
