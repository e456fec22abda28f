"""The Markdown report of an evaluation, with the best and the worst images of each dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain.config.data import DataConfig
from derain.data.images.decode import encode_png
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared
from derain.evaluation.gallery import best_and_worst, grid
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
        dataset, images = datasets[item["name"]], item["per_picture"]
        picks = best_and_worst(images, SHOWN)
        numbers = {key: at for at, key in enumerate(dataset.column("key").tolist())}
        rows = [numbers[images[pick]["key"]] for pick in picks]  # some images may be left out
        name = f"{path.stem}_images/{number:02d}-{_file_name(item['name'])}.png"
        shown.append(GalleryImages(name, tuple(picks)))
        file = path.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (pixels,) = open_all_pixels([dataset], DataConfig.model_validate({}))
        file.write_bytes(encode_png(grid([derain] if derain else [], pixels, rows)))
    path.write_text(markdown(result, shown), encoding="utf-8")


def _file_name(name: str) -> str:
    """A dataset's name as part of a file name: also of `a/test`, and of one that is very long."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    return kept.encode()[-NAME_CHARACTERS:].decode(errors="ignore")
