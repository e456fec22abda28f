"""`density`: how well CLIP distinguishes rain densities, counted as in FCLIP-UNet's Table 1."""

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from derain.config import Config
from derain.config.networks import CLIPRPNConfig
from derain.data.loading.cache import Pixels
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import DataError, UsageError, WeightsError
from derain.models.encoders.rain_perception import RainPerception, zero_shot_counts
from derain.training.process.device import pick_device
from derain.training.routes import rainy_batches

log = logging.getLogger(__name__)

ORDER = ("light", "medium", "moderate", "heavy")
PUBLISHED = {"light": (196, 97, 107), "moderate": (68, 188, 144), "heavy": (95, 157, 148)}
"""Table 1: Test1200, CLIP zero-shot, prompts "light rain", "moderate rain", "heavy rain"."""


def density(config: Config, prepared: str, label: str = "density") -> dict[str, Any]:
    """Count which prompt each image matches best, by its true label.

    Returns what `derainctl density --json` prints. Raises UsageError for a network without prompts
    and for random weights, whose counts mean nothing, DataError if an image has no such label.
    """
    model = config.model
    if not isinstance(model, CLIPRPNConfig):
        raise UsageError(f"density needs a config with prompts (clip_rpn), found {model.name}.")
    dataset = open_prepared(prepared)
    labels = _labels(dataset, label)
    classes = sorted(set(labels), key=_order)
    perception = _perception(model).to(pick_device(config.train))
    (pixels,) = open_all_pixels([dataset], config.data)
    targets = [classes.index(name) for name in labels]
    images = _image_batches(pixels, targets, perception.text.device)
    counts = zero_shot_counts(perception, images, len(classes)).tolist()
    return {
        "dataset": dataset.folder.name,
        "manifest_sha256": dataset.manifest.sha256(),
        "pictures": len(labels),
        "encoder_weights": model.encoder_weights,
        "prompts": list(model.prompts),
        "counts": dict(zip(classes, counts, strict=True)),
        "right": _accuracy(counts),
        "published": {key: list(row) for key, row in PUBLISHED.items()},
    }


def _perception(model: CLIPRPNConfig) -> RainPerception:
    if model.encoder_weights == "random":
        raise UsageError(
            "model.encoder_weights=random: the counts of an untrained CLIP mean nothing. Give a "
            "tag such as openai, or the path of weights of CLIP-ViT-B/32."
        )
    try:
        return RainPerception(
            model.encoder_weights,
            model.prompts,
            similarity=model.similarity,
            temperature=model.temperature,
            dim=model.encoder_dim,
            width=model.encoder_width,
            layers=model.encoder_layers,
            text_width=model.encoder_text_width,
            text_layers=model.encoder_text_layers,
        )
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error


def _labels(dataset: Prepared, label: str) -> list[str]:
    found = [json.loads(text).get(label) or None for text in dataset.column("labels")]
    if None in found:
        key = dataset.column("key")[found.index(None)]
        raise DataError(
            f"{dataset.folder}: {found.count(None)} of {len(found)} images have no label "
            f"`{label}`, for example {key}. rain1200 has densities, and so has the output of "
            "`derainctl synthesize`; --label chooses another label."
        )
    return [str(value) for value in found]


def _order(label: str) -> tuple[int, str]:
    """Sort key: known densities from light to heavy, then other labels."""
    name = label.lower()
    return (ORDER.index(name) if name in ORDER else len(ORDER), label)


def _image_batches(
    pixels: Pixels, targets: Sequence[int], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of rainy images, and the number of each image's class."""
    for numbers, images in rainy_batches(pixels, device):
        yield images, torch.tensor([targets[number] for number in numbers])


def _accuracy(counts: Sequence[Sequence[int]]) -> float | None:
    """The share of images that match the prompt of their class; None unless each class has one."""
    table = np.asarray(counts)
    return float(np.trace(table) / table.sum()) if table.shape[0] == table.shape[1] else None
