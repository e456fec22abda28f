"""The Markdown report of an evaluation, next to published values for the datasets that have any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from derain.evaluation.metric_names import psnr_name, ssim_name

SETS = ("test100", "rain100h", "rain100l", "test2800", "test1200")
TABLE3: dict[str, tuple[float, ...]] = {
    "DerainNet": (22.77, 0.810, 14.92, 0.592, 27.03, 0.884, 24.31, 0.861, 23.38, 0.835),
    "DID-MDN": (22.56, 0.818, 17.35, 0.524, 25.23, 0.741, 28.13, 0.867, 29.95, 0.901),
    "RESCAN": (25.00, 0.835, 26.36, 0.785, 29.80, 0.881, 31.29, 0.904, 30.51, 0.882),
    "MSPFN": (27.50, 0.876, 28.66, 0.860, 32.40, 0.933, 32.82, 0.930, 32.39, 0.916),
    "MPRNet": (30.27, 0.897, 30.41, 0.890, 36.40, 0.965, 33.64, 0.938, 32.91, 0.916),
    "Uformer-B": (29.90, 0.906, 30.31, 0.900, 36.86, 0.972, 33.53, 0.939, 29.45, 0.903),
    "IDT": (29.69, 0.905, 29.95, 0.898, 37.01, 0.971, 33.38, 0.937, 31.38, 0.908),
    "DCTR": (30.91, 0.912, 30.74, 0.892, 38.19, 0.974, 33.89, 0.941, 33.57, 0.926),
    "AFENet": (30.51, 0.918, 31.22, 0.901, 37.66, 0.978, 33.13, 0.925, 33.82, 0.944),
    "DPCNet": (30.59, 0.914, 30.73, 0.899, 37.96, 0.974, 33.23, 0.928, 33.87, 0.941),
    "FCLIP-UNet": (31.23, 0.924, 30.82, 0.903, 38.06, 0.972, 34.03, 0.943, 33.27, 0.928),
}
"""FCLIP-UNet, Table 3: PSNR and SSIM on each of `SETS`, all networks trained on Rain13K.

The paper does not state the protocol; rows copied there from other tables have values under the
protocol `rain13k`."""


@dataclass(frozen=True)
class GalleryImages:
    """An image file with one row per image of a dataset, and the indices of these images."""

    file: str
    """Path relative to the report."""
    indices: tuple[int, ...]
    """From the highest PSNR to the lowest."""


def markdown(result: Mapping[str, Any], galleries: Sequence[GalleryImages] = ()) -> str:
    """The report of a result of `evaluate`; `galleries` has one item per dataset, or none."""
    lines = [f"# {result['model']}", "", *_measured_table(result["datasets"])]
    if result.get("left_out"):
        lines += ["", *_left_out(result["left_out"])]
    for item in result["datasets"]:
        if published_set(item["dataset"], item["split"]) is not None:
            lines += ["", *_published_table(item, result["protocols"])]
    if galleries:
        for item, images in zip(result["datasets"], galleries, strict=True):
            lines += ["", *_gallery(item, images, result["protocols"][0])]
    return "\n".join(lines) + "\n"


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
        lines.append(f"| {_cell(scored['key'])} | {_metric_cells(scored)} |")
    return [*lines, "", f"![rainy, derained, clean](<{quote(images.file)}>)"]


def _left_out(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """The images and datasets that could not be scored; no mean includes them."""
    return ["Left out, and in no mean:", ""] + [
        f"- {item['dataset']}{', ' + item['key'] if item['key'] else ''}: {item['reason']}"
        for item in items
    ]


def _cell(text: str) -> str:
    """A name as part of a table's row."""
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _metric_cells(scores: Mapping[str, Any]) -> str:
    return " | ".join(
        f"{found[psnr_name(found)]:.3f} | {found[ssim_name(found)]:.4f}"
        for found in (scores["metrics"], scores["input"])
    )


def published_set(dataset: str, split: str) -> str | None:
    """The member of `SETS` that a dataset is (a split of rain13k, or by its name), or None."""
    name = split if dataset == "rain13k" else dataset
    return name if name in SETS else None


def _measured_table(datasets: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| dataset | images | protocol | PSNR | SSIM | input PSNR | input SSIM |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    return lines + [
        f"| {_cell(item['name'])} | {item['pictures']} | {protocol} | {_metric_cells(scores)} |"
        for item in datasets
        for protocol, scores in item["by_protocol"].items()
    ]


def _published_table(item: Mapping[str, Any], protocols: Sequence[str]) -> list[str]:
    name = published_set(item["dataset"], item["split"])
    assert name is not None
    column = 2 * SETS.index(name)
    lines = [
        f"## {item['name']} compared with FCLIP-UNet, Table 3",
        "",
        _comparability(item, protocols),
        "",
        "| network | PSNR | SSIM |",
        "| --- | ---: | ---: |",
    ]
    if "rain13k" in item["by_protocol"]:
        ours = item["by_protocol"]["rain13k"]["metrics"]
        lines.append(f"| **this model** | {ours['psnr_y']:.2f} | {ours['ssim_y']:.3f} |")
    return lines + [
        f"| {network} | {row[column]:.2f} | {row[column + 1]:.3f} |"
        for network, row in TABLE3.items()
    ]


def _comparability(item: Mapping[str, Any], protocols: Sequence[str]) -> str:
    reasons = []
    if item["dataset"] != "rain13k":
        reasons.append("the images are not Rain13K's version of the set (which crops some)")
    if left_out := item.get("left_out"):
        reasons.append(f"{len(left_out)} images were left out")
    if "rain13k" not in protocols:
        reasons.append("the protocol differs from the published one")
    if reasons:
        return f"**Not comparable**: {'; '.join(reasons)}."
    return (
        "**Comparable only if this model was trained on Rain13K**, as the networks in the table "
        "were. The paper does not state its protocol; rain13k is the one that matches the rows it "
        "copied from other papers."
    )
