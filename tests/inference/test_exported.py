"""Exported files give the same images as the network, and run no code without trust."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from derain.errors import DataError, DerainError, OccupiedError, UsageError, WeightsError
from derain.inference import exported
from derain.inference.exported import SUFFIXES, export, is_exported, load_exported
from derain.inference.predictor import Predictor
from tests.inference.small_networks import NETWORKS, TOLERANCE, network


def image(height: int = 37, width: int = 51) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


SLOW_AT_ANY_SIZE = ("fclip_unet", "clip_rpn")
"""Their ONNX export takes half a minute if the size is free, and seconds if it is fixed."""


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SLOW_AT_ANY_SIZE)
def test_a_file_of_a_fixed_size_gives_the_images_of_its_network(tmp_path: Path, name: str) -> None:
    ours, size = network(name), (64, 96)
    path = export(ours, tmp_path / "net.onnx", "onnx", size_px=size)
    expected = Predictor(ours).levels(image(*size))
    levels = Predictor(load_exported(path)).levels(image(*size))
    np.testing.assert_allclose(levels, expected, atol=255 * TOLERANCE)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(
            pytest.param(name, "onnx", marks=pytest.mark.soak if name in SLOW_AT_ANY_SIZE else ())
            for name in NETWORKS
        ),
        ("nafnet", "torch-export"),
    ],
)
def test_a_file_gives_the_images_of_its_network_at_any_size(
    tmp_path: Path, name: str, kind: Any
) -> None:
    ours = network(name)
    path = export(ours, tmp_path / f"net{SUFFIXES[kind]}", kind)
    assert is_exported(str(path))
    found = load_exported(path, trust=kind != "onnx")
    assert found.stride == ours.stride
    for size in [(37, 51), (64, 48)]:
        expected = Predictor(ours).levels(image(*size))
        levels = Predictor(found).levels(image(*size))
        np.testing.assert_allclose(levels, expected, atol=255 * TOLERANCE)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("size_px", [None, (32, 48)])
def test_onnx_runs_batches_in_other_programs(
    tmp_path: Path, size_px: tuple[int, int] | None
) -> None:
    """With named input and output, checked by onnx, clamped, for any number of images."""
    ours = network("prenet")
    with torch.no_grad():
        ours.conv[0].bias += torch.tensor([0.9, 0.0, -0.9])  # raw output beyond [0, 1]
    path = export(ours, tmp_path / "net.onnx", "onnx", size_px=size_px)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    onnx.checker.check_model(str(path), full_check=True)
    sides = ["height", "width"] if size_px is None else list(size_px)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for value, name in ((*session.get_inputs(), "rainy"), (*session.get_outputs(), "derained")):
        assert (value.name, value.shape) == (name, ["batch", 3, *sides])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata == {
        "derain.stride": "1",
        "derain.network": "PReNet",
        "derain.range": "0..1",
    }
    for count in (1, 3):
        rainy = torch.rand(count, 3, *(size_px or (33, 47)))
        (derained,) = session.run(["derained"], {"rainy": rainy.numpy()})
        with torch.no_grad():
            raw = ours(rainy)
        assert raw.min() < 0
        assert raw.max() > 1
        np.testing.assert_allclose(derained, raw.clamp(0, 1), atol=TOLERANCE)


class Doubling(nn.Module):
    """Works for one image only."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).reshape(1, 3, x.shape[2], x.shape[3])


def test_a_network_of_single_images_is_exported_as_such(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = export(Doubling(), tmp_path / "net.pt2", "torch-export")
    assert "accepts one image at a time" in caplog.text
    assert load_exported(path, trust=True)(torch.rand(1, 3, 33, 35)).shape == (1, 3, 33, 35)


def test_a_file_that_differs_from_its_network_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "TOLERANCE", -1.0)
    with pytest.raises(DerainError, match=r"differs from PReNet by .* 1 images of 35x33 px"):
        export(network("prenet"), tmp_path / "net.pt2", "torch-export")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_a_fixed_size_refuses_other_sizes(tmp_path: Path) -> None:
    path = export(network("prenet"), tmp_path / "net.onnx", "onnx", size_px=(32, 48))
    found = load_exported(path)
    assert found(torch.rand(1, 3, 32, 48)).shape == (1, 3, 32, 48)
    with pytest.raises(DataError, match="48x32 px only, found 64x32"):
        found(torch.rand(1, 3, 32, 64))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_files_that_may_run_code_need_trust(tmp_path: Path) -> None:
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


def test_a_state_dict_is_not_an_exported_network(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt")
    assert not is_exported(str(tmp_path / "weights.pt"))
    assert not is_exported(str(tmp_path))


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>404 not found</html>")
    with pytest.raises(WeightsError, match=name):
        load_exported(tmp_path / name, trust=True)


class Branching(nn.Module):
    """Branches on the values of its input, which a graph cannot."""

    stride = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_exported_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Branching.*--size"):
        export(Branching(), tmp_path / "net.pt2", "torch-export")
    with pytest.raises(UsageError, match=r"must end with \.onnx"):
        export(Branching(), tmp_path / "net.pt2", "onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "net.pt2").touch()
    with pytest.raises(OccupiedError, match="would be overwritten"):
        export(Branching(), tmp_path / "net.pt2", "torch-export")


def onnx_file(path: Path, shape: list[Any], *, inputs: int = 1, stride: str = "1") -> Path:
    """A network that gives back its first input."""
    names = [f"x{number}" for number in range(inputs)]
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name in (*names, "y")]
    nodes = [onnx.helper.make_node("Identity", names[:1], ["y"])] if inputs else []
    nodes = nodes or [onnx.helper.make_node("Constant", [], ["y"], value_float=1.0)]
    graph = onnx.helper.make_graph(nodes, "net", values[:-1], values[-1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 8
    onnx.helper.set_model_props(model, {exported.STRIDE: stride})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("shape", "inputs"), [(["n", "m"], 1), ([3], 1), (["b", 3, "h", "w"], 2), ([], 0)]
)
def test_a_network_of_something_else_is_refused(
    tmp_path: Path, shape: list[Any], inputs: int
) -> None:
    path = onnx_file(tmp_path / "net.onnx", shape, inputs=inputs)
    with pytest.raises(WeightsError, match=r"net\.onnx: expected one input \(batch, 3"):
        load_exported(path)


@pytest.mark.parametrize("stride", ["0", "-4", "x", "2.5", "", "1" * 30])
def test_a_stride_that_is_none_is_refused_unless_another_is_given(
    tmp_path: Path, stride: str
) -> None:
    path = onnx_file(tmp_path / "net.onnx", ["b", 3, "h", "w"], stride=stride)
    with pytest.raises(WeightsError, match=r"net\.onnx: its metadata .* Give --stride"):
        load_exported(path)
    assert load_exported(path, stride=4).stride == 4


def test_an_image_that_a_file_does_not_take_is_one_message(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "net.onnx", ["b", 1, "h", "w"])
    with pytest.raises(DerainError, match=r"net\.onnx: fails on an image of \(1, 3, 37, 51\)"):
        Predictor(load_exported(path)).levels(image())
