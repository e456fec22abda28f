"""The Markdown report of an evaluation: tables, what was left out, best and worst images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from derain.evaluation.tables import text
from derain.evaluation.tables.compose import tables_of
from derain.evaluation.tables.methods import methods_of, value_of
from derain.evaluation.tables.published_tables import PSNR, SSIM

OWN = ("measured", "further_metrics")
"""Tables without quoted rows, which come first."""


@dataclass(frozen=True)
class GalleryImages:
    """An image file with one row per image of a dataset, and the indices of these images."""

    file: str
    """Path relative to the report."""
    indices: tuple[int, ...]
    """From the highest PSNR to the lowest."""


def markdown(result: Mapping[str, Any], galleries: Sequence[GalleryImages] = ()) -> str:
    """The report of a result of `evaluate`; `galleries` has one item per dataset, or none."""
    tables = tables_of(result)
    title = " and ".join(method.name for method in methods_of(result))
    own = [table for table in tables if table.name in OWN]
    lines = [f"# {title}", "", *(text.markdown(table) for table in own)]
    if result.get("left_out"):
        lines += [*_left_out(result["left_out"]), ""]
    lines += [text.markdown(table) for table in tables if table not in own]
    if galleries:
        for item, images in zip(result["datasets"], galleries, strict=True):
            if images.indices:
                lines += _gallery(item, images, result["protocols"][0])
    return "\n".join(lines).rstrip("\n") + "\n"


def _left_out(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """The images and datasets that could not be scored; no mean includes them."""
    return ["Left out, and in no mean:", ""] + [
        f"- {item['dataset']}{', ' + item['key'] if item['key'] else ''}: {item['reason']}"
        for item in items
    ]


def _gallery(item: Mapping[str, Any], images: GalleryImages, protocol: str) -> list[str]:
    """The metrics of the best and the worst images, and below them the images in that order."""
    lines = [
        f"## {item['name']}: best and worst images",
        "",
        f"Ordered by PSNR under {protocol}, best first. Each row shows the rainy, derained and "
        "clean image.",
        "",
        "| image | PSNR | SSIM | input PSNR | input SSIM |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for index in images.indices:
        scored = item["per_picture"][index]
        lines.append(f"| {text.escaped(scored['key'])} | {_metric_cells(scored)} |")
    return [*lines, "", f"![rainy, derained, clean](<{quote(images.file)}>)", ""]


def _metric_cells(scores: Mapping[str, Any]) -> str:
    return " | ".join(
        f"{value_of(found, PSNR):.3f} | {value_of(found, SSIM):.4f}"
        for found in (scores["metrics"], scores["input"])
    )
