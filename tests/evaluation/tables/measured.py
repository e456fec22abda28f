"""Results as `evaluate --json` prints them, with chosen values."""

from collections.abc import Mapping, Sequence
from typing import Any

RAIN13K = [{"dataset": "rain13k", "split": "train", "pairs": 13_026}]
"""95 % of it; the rest validates."""
COUNTS = {"test100": 98, "rain100h": 100, "rain100l": 100, "test2800": 2800, "test1200": 1200}


def item(
    dataset: str,
    split: str,
    psnr: float,
    *,
    images: int = 100,
    left_out: int = 0,
    protocols: Sequence[str] = ("rain13k",),
) -> dict[str, Any]:
    """A dataset on which a method has this PSNR; SSIM is PSNR / 100, the input has 5 dB less."""
    sides = {"metrics": psnr, "input": psnr - 5}
    means = {
        side: {"psnr_y": value, "ssim_y": round(value / 100, 6)} for side, value in sides.items()
    }
    return {
        "name": f"{dataset}-{split}",
        "dataset": dataset,
        "split": split,
        "pictures": images - left_out,
        "left_out": [{"key": str(at), "reason": "damaged"} for at in range(left_out)],
        "by_protocol": {name: {"identity": f"{name} v1", **means} for name in protocols},
    }


def five_sets(psnrs: Sequence[float] = (31.5, 30.2, 38.1, 33.0, 33.2)) -> list[dict[str, Any]]:
    """The five test sets of Rain13K."""
    return [
        item("rain13k", split, psnr, images=images)
        for (split, images), psnr in zip(COUNTS.items(), psnrs, strict=True)
    ]


def result(*datasets: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A result of models:/net@champion on these datasets."""
    return {
        "model": "models:/net@champion",
        "protocols": ["rain13k"],
        "datasets": list(datasets),
        "left_out": [],
        **more,
    }
