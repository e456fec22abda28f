"""How well CLIP's matching tells densities of rain apart, as FCLIP-UNet's Table 1 counts it."""

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
from derain.data.loading.loader import open_all
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
    """Count the prompt that each image matches best, by its true label; returns what
    `derainctl density --json` prints.

    Raises UsageError for a network without prompts and for random weights, which see no rain,
    DataError where an image has no such label.
    """
    model = config.model
    if not isinstance(model, CLIPRPNConfig):
        raise UsageError(f"density needs a config with prompts (clip_rpn), found {model.name}.")
    dataset = open_prepared(prepared)
    truths = _labels(dataset, label)
    classes = sorted(set(truths), key=_rank)
    perception = _perception(model).to(pick_device(config.train))
    (pixels,) = open_all([dataset], config.data)
    numbers = [classes.index(truth) for truth in truths]
    images = _images(pixels, numbers, perception.text.device)
    counts = zero_shot_counts(perception, images, len(classes)).tolist()
    return {
        "dataset": dataset.folder.name,
        "manifest_sha256": dataset.manifest.sha256(),
        "pictures": len(truths),
        "encoder_weights": model.encoder_weights,
        "prompts": list(model.prompts),
        "counts": dict(zip(classes, counts, strict=True)),
        "right": _right(counts),
        "published": {key: list(row) for key, row in PUBLISHED.items()},
    }


def _perception(model: CLIPRPNConfig) -> RainPerception:
    if model.encoder_weights == "random":
        raise UsageError(
            "model.encoder_weights=random: a CLIP that was never trained sees no rain, its counts "
            "mean nothing. Give a tag such as openai, or the path of a CLIP-ViT-B/32's weights."
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
    found = [json.loads(text).get(label) for text in dataset.column("labels")]
    if None in found:
        key = dataset.column("key")[found.index(None)]
        raise DataError(
            f"{dataset.folder}: {found.count(None)} of {len(found)} images have no label "
            f"`{label}`, {key} for one. Datasets with densities are rain1200 and what "
            "`derainctl synthesize` makes; --label names another label."
        )
    return [str(value) for value in found]


def _rank(value: str) -> tuple[int, str]:
    known = value.lower()
    return (ORDER.index(known) if known in ORDER else len(ORDER), value)


def _images(
    pixels: Pixels, truths: Sequence[int], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    for numbers, images in rainy_batches(pixels, device):
        yield images, torch.tensor([truths[number] for number in numbers])


def _right(counts: Sequence[Sequence[int]]) -> float | None:
    """The share of images whose prompt has the number of their class, where there are as many."""
    table = np.asarray(counts)
    return float(np.trace(table) / table.sum()) if table.shape[0] == table.shape[1] else None
