"""Exported files give the network's own images, and nothing runs code without trust."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from derain.errors import DataError, OccupiedError, UsageError, WeightsError
from derain.inference.exported import SUFFIXES, export, is_exported, load_exported
from derain.inference.predictor import Predictor
from derain.models import build, trained_parameters

NETWORKS: dict[str, dict[str, Any]] = {
    "fclip_unet": {
        "encoder_weights": "random",
        "encoder_layers": (1, 1, 1),
        "encoder_width": 4,
        "decoder_widths": (8, 8, 8, 8, 8),
        "decoder_depths": (1, 1, 1, 1, 1),
        "ldfps_sigma": None,
    },
    "clip_rpn": {
        "routing": "single",
        "widths": (8, 12),
        "depths": (1, 1),
        "heads": (1, 2),
        "mgca": ("window",),
    },
    "rdmc": {"widths": (4, 8), "dilations": (1, 2), "recursions": 2},
    "prenet": {"width": 8, "recursions": 2},
    "nafnet": {"width": 8, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)},
}
"""The others are in tests/soak/soak_exports.py: ONNX takes its time."""
TOLERANCE = 1e-5
"""Of 1: far below half a level of 8 bits, 2e-3."""


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    made = build(name, **NETWORKS[name])
    for parameter in trained_parameters(made).values():  # some blocks start as the identity
        nn.init.normal_(parameter, std=0.1)
    return made.eval()


def image(height: int = 37, width: int = 51) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "onnx") for name in NETWORKS), ("nafnet", "torch-export")]
)
def test_a_file_gives_the_networks_images_of_any_size(tmp_path: Path, name: str, kind: Any) -> None:
    ours = network(name)
    path = export(ours, tmp_path / f"net{SUFFIXES[kind]}", kind)
    assert is_exported(str(path))
    found = load_exported(path, trust=kind != "onnx")
    assert found.stride == ours.stride
    for size in [(37, 51), (64, 48)]:
        expected = Predictor(ours).levels(image(*size))
        levels = Predictor(found).levels(image(*size))
        np.testing.assert_allclose(levels, expected, atol=255 * TOLERANCE)


def test_a_fixed_size_takes_no_other(tmp_path: Path) -> None:
    path = export(network("prenet"), tmp_path / "net.onnx", "onnx", size_px=(32, 48))
    found = load_exported(path)
    assert found(torch.rand(1, 3, 32, 48)).shape == (1, 3, 32, 48)
    with pytest.raises(DataError, match="48x32 px only, found 64x32"):
        found(torch.rand(1, 3, 32, 64))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_what_may_run_code_needs_trust(tmp_path: Path) -> None:
    program = export(network("prenet"), tmp_path / "net.pt2", "torch-export")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(network("prenet"), torch.rand(1, 3, 16, 16))
        script.save(str(tmp_path / "net.pt"))
    for path in (program, tmp_path / "net.pt"):
        assert is_exported(str(path))
        with pytest.raises(UsageError, match=r"can run code.*--trust"):
            load_exported(path)
    found = load_exported(tmp_path / "net.pt", trust=True, stride=4)
    assert found.stride == 4
    levels = Predictor(found).levels(image(36, 52))
    expected = Predictor(network("prenet")).levels(image(36, 52))
    np.testing.assert_allclose(levels, expected, atol=255 * TOLERANCE)


def test_a_state_dict_is_no_exported_network(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt")
    assert not is_exported(str(tmp_path / "weights.pt"))
    assert not is_exported(str(tmp_path))


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404 not found</html>")
    with pytest.raises(WeightsError, match=name):
        load_exported(tmp_path / name, trust=True)


class Undecided(nn.Module):
    """Branches on its input, which no graph can."""

    stride = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_exported_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Undecided.*--size"):
        export(Undecided(), tmp_path / "net.pt2", "torch-export")
    with pytest.raises(UsageError, match=r"ends with \.onnx"):
        export(Undecided(), tmp_path / "net.pt2", "onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "net.pt2").touch()
    with pytest.raises(OccupiedError, match="would be overwritten"):
        export(Undecided(), tmp_path / "net.pt2", "torch-export")
