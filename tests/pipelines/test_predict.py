"""`predict`: images and folders of images in, one PNG file per image out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.data.images.decode import read_image
from derain.errors import DataError, OccupiedError
from derain.inference.exported import export
from derain.models import build
from derain.pipelines.load_model import load_predictor
from derain.pipelines.predict import predict


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, size in enumerate([(33, 21), (16, 48)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_every_image_is_derained(trained: Any, images: Path, tmp_path: Path) -> None:
    single = tmp_path / "single.bmp"
    Image.fromarray(read_image(images / "0.png")).save(single)
    out = tmp_path / "deep" / "out"
    model = trained.result["checkpoint"]
    written = predict(model, [images, single], out)
    assert written == [str(out / name) for name in ("0.png", "1.png", "single.png")]
    predictor = load_predictor(model, "cpu")
    for name in ("0.png", "1.png"):
        expected = predictor.derain(read_image(images / name))
        np.testing.assert_array_equal(read_image(out / name), expected)
    assert (out / "0.png").read_bytes() == (out / "single.png").read_bytes()


def test_nothing_is_overwritten(trained: Any, images: Path, tmp_path: Path) -> None:
    model = trained.result["checkpoint"]
    with pytest.raises(OccupiedError, match=r"0\.png"):
        predict(model, [images], images)
    (tmp_path / "other").mkdir()
    (images / "0.png").rename(tmp_path / "other" / "1.png")
    with pytest.raises(OccupiedError, match=r"1\.png"):
        predict(model, [images, tmp_path / "other"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_or_damaged_image_is_named(trained: Any, images: Path, tmp_path: Path) -> None:
    model = trained.result["checkpoint"]
    with pytest.raises(DataError, match="nowhere"):
        predict(model, [tmp_path / "nowhere"], tmp_path / "out")
    whole = (images / "1.png").read_bytes()
    (images / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"1\.png"):
        predict(model, [images], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (images / "1.png").write_bytes(whole)
    assert len(predict(model, [images], tmp_path / "out")) == 2


def test_a_failed_call_can_be_repeated(images: Path, tmp_path: Path) -> None:
    """The network accepts the size of the first image only."""
    network = build("nafnet", width=8, encoder_blocks=[1], decoder_blocks=[1], middle_blocks=1)
    only_48_high = export(network, tmp_path / "net.pt2", "torch-export", (48, 16))
    Image.new("RGB", (16, 48)).save(images / "0.png")
    with pytest.raises(DataError, match="16x48 px only"):
        predict(str(only_48_high), [images], tmp_path / "out", trust=True)
    assert list((tmp_path / "out").iterdir()) == []
    Image.new("RGB", (16, 48)).save(images / "1.png")
    assert len(predict(str(only_48_high), [images], tmp_path / "out", trust=True)) == 2
