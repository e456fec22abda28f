"""--downstream -> a detector or a segmenter: a class of the user's, or a network of torchvision."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from derain.errors import UsageError, WeightsError
from derain.evaluation.downstream.found import Downstream
from derain.models.precision import without_tf32
from derain.models.shapes import image_batch
from derain.models.weights import load_strictly, read_state_dict
from derain.plugins.identity import identity
from derain.plugins.resolve import resolve

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, which torchvision's segmenters expect images to be scaled by."""


@dataclass(frozen=True)
class DownstreamSpec:
    """What --downstream and --downstream-weights say; small, for workers and for the identity."""

    name: str
    weights: str | None = None

    def identity(self) -> dict[str, str]:
        """The digest of the weights, or of the file that has the class."""
        if self.weights is None:
            return {"name": self.name, "sha256": identity(self.name)["sha256"]}
        digest = hashlib.sha256(Path(self.weights).read_bytes()).hexdigest()
        return {"name": self.name, "sha256": digest}


def load_downstream(spec: DownstreamSpec, device: str) -> Downstream:
    """Build `module:Class` without arguments, or a torchvision network with weights from a file.

    Raises UsageError for an unknown name or missing weights, WeightsError if they do not fit.
    """
    if ":" in spec.name:
        return _user_defined(spec)
    import torchvision  # takes seconds to import

    detection = torchvision.models.list_models(torchvision.models.detection)
    segmentation = torchvision.models.list_models(torchvision.models.segmentation)
    if spec.name not in (*detection, *segmentation):
        raise UsageError(
            f"--downstream {spec.name}: expected module:Class, or a network of torchvision: "
            f"{', '.join((*detection, *segmentation))}."
        )
    if spec.weights is None:
        raise UsageError(
            f"--downstream {spec.name}: its weights are missing. Give --downstream-weights FILE "
            "(.pth or .safetensors, a state dict of torchvision's network)."
        )
    network = _torchvision(spec.name, spec.weights).to(device).eval()
    return (_Detector if spec.name in detection else _Segmenter)(network, torch.device(device))


def _user_defined(spec: DownstreamSpec) -> Downstream:
    if spec.weights is not None:
        raise UsageError(f"--downstream {spec.name} loads its weights itself, in its constructor.")
    try:
        found: Downstream = resolve(spec.name)()
    except Exception as error:  # importing and building run the module's own code
        raise UsageError(
            f"--downstream {spec.name} cannot be built ({type(error).__name__}: {error}). It must "
            "be a class whose constructor needs no arguments, in a module that is installed or on "
            "PYTHONPATH, here and on every worker."
        ) from error
    return found


def _torchvision(name: str, weights: str) -> nn.Module:
    import torchvision

    try:
        tensors = read_state_dict(weights)
        options: dict[str, Any] = {"weights": None, "weights_backbone": None}
        if any(key.startswith("aux_classifier.") for key in tensors):
            options["aux_loss"] = True
        network: nn.Module = torchvision.models.get_model(name, **options)
        load_strictly(network, tensors, weights)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(f"--downstream-weights: {error}") from error
    return network


@dataclass(frozen=True)
class _Detector:
    """A detector of torchvision, with its own thresholds."""

    network: nn.Module
    device: torch.device

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode(), without_tf32():
            (found,) = self.network(list(_batch(image, self.device)))
        return {key: found[key].cpu().numpy() for key in ("boxes", "labels", "scores")}


@dataclass(frozen=True)
class _Segmenter:
    """A segmenter of torchvision, at the size of the image."""

    network: nn.Module
    device: torch.device

    def __call__(self, image: np.ndarray) -> np.ndarray:
        batch = _batch(image, self.device)
        mean, std = (batch.new_tensor(each).view(1, 3, 1, 1) for each in (MEAN, STD))
        with torch.inference_mode(), without_tf32():
            classes = self.network((batch - mean) / std)["out"].argmax(dim=1)
        return classes[0].cpu().numpy()


def _batch(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """NCHW, RGB, float32 in [0, 1]."""
    return image_batch(torch.from_numpy(np.ascontiguousarray(image))[None].to(device))
