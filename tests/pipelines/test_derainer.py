"""What goes in comes out: array, tensor or image of PIL, single or batch, of the same type."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import derain
from derain import models
from derain.errors import DataError, UsageError, WeightsError
from derain.inference.predictor import Predictor, save_model_folder
from derain.pipelines.derainer import Derainer

NETWORK = {"width": 4, "middle_blocks": 1, "encoder_blocks": [1], "decoder_blocks": [1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = models.build("nafnet", **NETWORK)
    return save_model_folder(network, tmp_path_factory.mktemp("model") / "net", "nafnet", NETWORK)


@pytest.fixture(scope="module")
def remove_rain(folder: Path) -> Derainer:
    return derain.load(folder, device="cpu")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (21, 34, 3), np.uint8)


def test_arrays_and_tensors_give_the_same(remove_rain: Derainer, image: np.ndarray) -> None:
    derained = remove_rain(image)
    assert (derained.dtype, derained.shape) == (np.uint8, image.shape)
    expected = Predictor(remove_rain.network).derain(image)
    np.testing.assert_array_equal(derained, expected)

    batch = remove_rain(np.stack([image, image[::-1]]))
    np.testing.assert_array_equal(batch[0], expected)
    tensor = remove_rain(torch.from_numpy(image).permute(2, 0, 1))
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(tensor.permute(1, 2, 0), expected)
    np.testing.assert_array_equal(remove_rain(Image.fromarray(image)), expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_floats_are_neither_rounded_nor_changed_in_kind(
    remove_rain: Derainer, image: np.ndarray, kind: torch.dtype
) -> None:
    unit = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        padded = torch.from_numpy(np.pad(image, ((0, 1), (0, 0), (0, 0)), mode="reflect"))
        direct = remove_rain.network(padded.permute(2, 0, 1)[None].float() / 255)
    found = remove_rain(unit.to(kind))
    assert (found.dtype, found.shape) == (kind, unit.shape)
    within = 1e-6 if kind != torch.bfloat16 else 0.02  # the input itself is rounded there
    torch.testing.assert_close(
        found.float(), direct[..., :21, :].clamp(0, 1), atol=within, rtol=within
    )
    as_array = remove_rain(unit[0].permute(1, 2, 0).numpy().astype(np.float64))
    assert as_array.dtype == np.float64


def test_pil_keeps_alpha_and_takes_grey(remove_rain: Derainer, image: np.ndarray) -> None:
    pil = Image.fromarray(image)
    pil.putalpha(Image.fromarray(image[..., 0]))
    found = remove_rain(pil)
    assert (found.mode, found.size) == ("RGBA", pil.size)
    np.testing.assert_array_equal(found.getchannel("A"), image[..., 0])
    assert remove_rain(pil.convert("L")).mode == "RGB"


def test_pil_keeps_transparency_of_any_kind(remove_rain: Derainer, image: np.ndarray) -> None:
    rgba = Image.fromarray(np.dstack((image, image[..., 0])))
    assert remove_rain(rgba.convert("RGBa")).mode == "RGBA"
    assert remove_rain(rgba.convert("LA").convert("La")).mode == "RGBA"
    keyed = Image.fromarray(image)
    keyed.info["transparency"] = tuple(int(level) for level in image[3, 4])
    assert remove_rain(keyed).getpixel((4, 3))[3] == 0  # type: ignore[index]


def test_pil_of_16_bits_is_scaled(remove_rain: Derainer, image: np.ndarray) -> None:
    deep = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
    expected = remove_rain(Image.fromarray(image[..., 0]))
    np.testing.assert_array_equal(remove_rain(deep), expected)


def test_pil_of_a_damaged_file_is_refused(remove_rain: Derainer, image: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    cut = Image.open(io.BytesIO(buffer.getvalue()[:500]))
    with pytest.raises(DataError, match="cannot be read"):
        remove_rain(cut)


@pytest.mark.parametrize("option", [{"device": "gpu"}, {"device": "cuda:0"}, {"tile": "64"}])
def test_options_of_another_kind_are_refused(folder: Path, option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"expected auto, cpu, cuda|Tiles must have"):
        derain.load(folder, **option)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"uint8 of the shape \(8, 8\)"),
        (np.full((8, 8, 3), 200.0), "Divide levels in 0..255 by 255"),
        (np.full((8, 8, 3), np.nan), "NaN or infinity in 192 of 192 values"),
        (np.zeros((8, 8, 3), np.int16), r"uint8 in 0..255 or floats in \[0, 1\].* Found int16"),
        (np.zeros((0, 8, 8, 4), np.uint8), r"shape \(0, 8, 8, 4\)"),
        (np.zeros((0, 8, 8, 3), np.int64), "Found int64"),
        (torch.zeros(3, 8, 8).to_sparse(), "sparse_coo"),
        (torch.zeros(3, 8, 8, device="meta"), "on meta"),
        (Image.new("I", (8, 8)), "the mode I: 32 bits"),
        (Image.new("F", (8, 8)), "the mode F"),
        (Image.new("LAB", (8, 8)), "the mode LAB"),
        (torch.zeros(8, 8, 3), r"shape \(8, 8, 3\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "torch.int64"),
        ([[0, 0, 0]], "Found list"),
    ],
)
def test_anything_else_is_refused(remove_rain: Derainer, given: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        remove_rain(given)  # type: ignore[type-var]


def test_an_empty_batch_is_an_empty_batch(remove_rain: Derainer) -> None:
    assert remove_rain(np.zeros((0, 8, 8, 3), np.uint8)).shape == (0, 8, 8, 3)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        derain.load(tmp_path / "none")
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = derain.lod
