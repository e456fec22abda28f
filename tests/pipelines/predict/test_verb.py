"""`predict`: images and folders of images in, one file per image out."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from derain.data.images.convert import read_odd
from derain.data.images.decode import read_image
from derain.data.images.headers import read_header
from derain.data.images.kinds import Format
from derain.errors import DataError, OccupiedError, UsageError
from derain.inference.exported import export
from derain.inference.predictor import Predictor, save_model_folder
from derain.models import build
from derain.pipelines.load_model import load_predictor
from derain.pipelines.predict import verb as module
from derain.pipelines.predict import work
from derain.pipelines.predict.encode import Form
from derain.pipelines.predict.record import RECORD
from derain.pipelines.predict.verb import predict, predict_bytes
from tests.data.images.odd_images import DEEP, VARIANTS, camera_jpeg, encoded, profile


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, size in enumerate([(33, 21), (16, 48)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


class Identity:
    """A predictor that returns its images, so that a test sees what else changes."""

    network = torch.nn.Identity()

    def derain(self, image: np.ndarray) -> np.ndarray:
        return image


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module, "load_predictor", lambda *_, **__: Identity())
    return "any"


def test_every_image_is_derained(trained: Any, images: Path, tmp_path: Path) -> None:
    single = tmp_path / "single.bmp"
    Image.fromarray(read_image(images / "0.png")).save(single)
    out = tmp_path / "deep" / "out"
    model = trained.result["checkpoint"]
    written = predict(model, [images, single], out).pictures
    assert written == [str(out / name) for name in ("0.png", "1.png", "single.png")]
    predictor = load_predictor(model, "cpu")
    for name in ("0.png", "1.png"):
        expected = predictor.derain(read_image(images / name))
        np.testing.assert_array_equal(read_image(out / name), expected)
    assert (out / "0.png").read_bytes() == (out / "single.png").read_bytes()


def test_images_at_once_are_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones on a core each, and between them one that has all cores, and one of no use."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(9):
        size = (90, 80) if number == 4 else (40 + number, 50)
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "5.png").write_bytes(b"no image")
    monkeypatch.setattr(work, "SMALL_PX", 80 * 80)
    names = [f"{number}.png" for number in range(9) if number != 5]
    options: dict[str, Any] = {"recursions": 1, "width": 4}
    model = save_model_folder(build("prenet", **options), tmp_path / "net", "prenet", options)
    found = {}
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found[threads] = predict(str(model), [folder], tmp_path / str(threads))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert [Path(path).name for path in found[3].written] == names
    assert [Path(it.path).name for it in found[3].failed] == ["5.png"]
    one, several = ([(tmp_path / str(it) / name).read_bytes() for name in names] for it in (1, 3))
    assert one == several


def test_a_cpu_takes_small_images_at_once_as_far_as_the_memory_goes() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        network = build("prenet", recursions=1, width=4)
        plenty, little = (Predictor(network, memory_share=share) for share in (1e3, 1e-9))
        assert work.turns_here(plenty, 100) == work.Turns(at_once=8, threads=1, alone=8)
        assert work.turns_here(plenty, 3) == work.Turns(at_once=3, threads=2, alone=8)
        assert work.turns_here(little, 100) == work.Turns(at_once=1, threads=8, alone=8)
        somebodys = Predictor(torch.nn.Identity())
        assert work.turns_here(somebodys, 100) == work.Turns(at_once=1, threads=8, alone=8)
    finally:
        torch.set_num_threads(before)


def test_nothing_is_overwritten(identity: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(OccupiedError, match=r"0\.png"):
        predict(identity, [images], images)
    predict(identity, [images], tmp_path / "out")
    (tmp_path / "out" / "0.png").write_bytes(b"mine")
    with pytest.raises(OccupiedError, match=r"0\.png"):
        predict(identity, [images], tmp_path / "out")
    assert (tmp_path / "out" / "0.png").read_bytes() == b"mine"
    done = predict(identity, [images], tmp_path / "out", overwrite=True)
    assert len(done.written) == 2
    assert read_image(tmp_path / "out" / "0.png").shape == (33, 21, 3)


def test_equal_names_in_folders_and_formats_do_not_collide(identity: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for name in ("x/a.png", "y/a.png", "y/a.bmp", "y/b.png", "z/y/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    inputs = [tmp_path / "x", tmp_path / "y", tmp_path / "z/y", tmp_path / "x/a.png"]
    written = predict(identity, inputs, tmp_path / "out").pictures
    assert len(set(written)) == len(written) == 6
    assert str(tmp_path / "out" / "b.png") in written
    assert str(tmp_path / "out" / "x" / "a.png") in written
    for path in written:
        np.testing.assert_array_equal(read_image(path), pixels)


def test_folders_below_keep_their_structure(identity: str, images: Path, tmp_path: Path) -> None:
    (images / "day/1").mkdir(parents=True)
    (images / "1.png").rename(images / "day/1/late.png")
    done = predict(identity, [images], tmp_path / "out")
    assert done.pictures == [str(tmp_path / "out" / n) for n in ("0.png", "day/1/late.png")]


def test_a_missing_file_or_a_pipe_is_refused_before_the_work(
    identity: str, images: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "live.jpg")
    for path, what in ((tmp_path / "nowhere", "no such file"), (tmp_path / "live.jpg", "neither")):
        with pytest.raises(DataError, match=what):
            predict(identity, [images, path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_costs_only_itself(trained: Any, images: Path, tmp_path: Path) -> None:
    (images / "0.png").write_bytes(b"broken")
    done = predict(trained.result["checkpoint"], [images], tmp_path / "out")
    assert done.pictures == [str(tmp_path / "out" / "1.png")]
    (failed,) = done.failed
    assert failed.path == str(images / "0.png")
    assert failed.reason.startswith("not a readable image")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [RECORD, "1.png"]


def test_what_is_not_a_file_or_not_read_is_noted(
    identity: str, images: Path, tmp_path: Path
) -> None:
    os.mkfifo(images / "live.jpg")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(images / "s.png"))
    (images / "scene.jpg").mkdir()
    (images / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (images / "gone.png").symlink_to(images / "nowhere")
    done = predict(identity, [images], tmp_path / "out")
    server.close()
    assert len(done.pictures) == 2
    assert {Path(item.path).name for item in done.left_out} == {"live.jpg", "s.png", "gone.png"}
    assert done.failed == []
    notes = "\n".join(done.notes)
    assert "phone.heic" in notes
    assert "scene.jpg" in notes


def test_a_folder_without_images_says_what_is_there(identity: str, tmp_path: Path) -> None:
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"no image .*phone\.heic"):
        predict(identity, [tmp_path], tmp_path / "out")


def test_a_size_that_the_network_refuses_costs_only_its_image(images: Path, tmp_path: Path) -> None:
    network = build("nafnet", width=8, encoder_blocks=[1], decoder_blocks=[1], middle_blocks=1)
    only_48_high = export(network, tmp_path / "net.pt2", "torch-export", (48, 16))
    Image.new("RGB", (16, 48)).save(images / "0.png")
    done = predict(str(only_48_high), [images], tmp_path / "out", trust=True)
    assert done.pictures == [str(tmp_path / "out" / "0.png")]
    assert "16x48 px only" in done.failed[0].reason


def test_an_image_that_is_too_large_for_the_memory_is_named(
    trained: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the allocator is torch's own, asked for far more than any machine has."""
    forward = Predictor._forward

    def fails(self: Predictor, rainy: Any, route: Any) -> Any:
        if rainy.shape[2:] == (48, 32):  # the image of 33 x 21 px, padded
            torch.empty(2**60)
        return forward(self, rainy, route)

    monkeypatch.setattr(Predictor, "_forward", fails)
    done = predict(trained.result["checkpoint"], [images], tmp_path / "out")
    assert [Path(path).name for path in done.pictures] == ["1.png"]
    assert done.failed[0].reason.startswith("21 x 33 px need more memory than there is")


ODD = {
    "a.tif": VARIANTS["TIFF of 16 bits"],
    "b.png": encoded(Image.fromarray(np.dstack((DEEP, DEEP[..., 0])).astype(np.uint8))),
    "c.png": VARIANTS["PNG in Display P3"],
    "d.jpg": VARIANTS["JPEG of orientation 6"],
    "e.jfif": camera_jpeg(),
    "f.png": encoded(Image.fromarray(DEEP[..., 0].astype(np.uint8))),
    "g.jpg": VARIANTS["JPEG of orientation 0"],
    "h.png": VARIANTS["PNG with a profile of 2 MiB"],
}


def test_odd_images_come_back_in_their_own_form(identity: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in ODD.items():
        (tmp_path / "in" / name).write_bytes(data)
    done = predict(identity, [tmp_path / "in"], tmp_path / "out")
    assert [Path(path).stem for path in done.pictures] == list("abcdefgh")
    for name, data in ODD.items():
        before = read_odd(data, name)
        after = read_odd((tmp_path / "out" / f"{name[0]}.png").read_bytes(), name)
        np.testing.assert_array_equal(after.levels, before.levels)
        assert after.header.orientation == 1
        assert (after.alpha is None) == (before.alpha is None)
    assert imagecodecs.png_decode((tmp_path / "out/a.png").read_bytes()).dtype == np.uint16
    assert read_header((tmp_path / "out/c.png").read_bytes(), "c").profile == profile()
    with Image.open(io.BytesIO((tmp_path / "out/f.png").read_bytes())) as grey:
        assert grey.mode == "L"


def test_a_deep_image_is_derained_in_16_bits(trained: Any, tmp_path: Path) -> None:
    (tmp_path / "deep.tif").write_bytes(VARIANTS["TIFF of 16 bits"])
    predict(trained.result["checkpoint"], [tmp_path / "deep.tif"], tmp_path / "out")
    derained = imagecodecs.png_decode((tmp_path / "out/deep.png").read_bytes())
    expected = load_predictor(trained.result["checkpoint"], "cpu").levels(DEEP)
    np.testing.assert_allclose(derained, expected * 257, atol=0.51)
    assert len(np.unique(derained)) > 256


@pytest.mark.parametrize("name", ["\u96e8" * 83 + ".webp", "x" * 251 + ".png"])
def test_a_long_name_is_written(identity: str, tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "short.png")
    (tmp_path / "short.png").rename(tmp_path / name)
    (written,) = predict(identity, [tmp_path / name], tmp_path / "out", compare=True).pictures
    assert Path(written).is_file()
    assert len(list((tmp_path / "out/compare").iterdir())) == 1


def test_a_name_that_is_not_utf_8_is_derained(identity: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / os.fsdecode(b"\xd3\xea.png"))
    (written,) = predict(identity, [tmp_path / "in"], tmp_path / "out").pictures
    assert os.fsencode(written).endswith(b"/out/\xd3\xea.png")


def test_what_is_done_stays_and_the_rest_is_made(
    identity: str, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = predict(identity, [images], out)
    (out / "1.png").unlink()
    kept = (out / "0.png").stat().st_mtime_ns
    second = predict(identity, [images], out)
    assert second.skipped == [str(out / "0.png")]
    assert second.written == [str(out / "1.png")]
    assert second.pictures == first.pictures
    assert (out / "0.png").stat().st_mtime_ns == kept


@pytest.mark.parametrize("change", ["image", "options", "record"])
def test_results_of_other_images_or_options_are_somebodys(
    identity: str, images: Path, tmp_path: Path, change: str
) -> None:
    out = tmp_path / "out"
    predict(identity, [images], out)
    form = Form()
    if change == "image":
        Image.new("RGB", (9, 9)).save(images / "0.png")
    elif change == "options":
        form = Form("same")  # the same names and, here, the same bytes
    else:
        (out / RECORD).unlink()
    with pytest.raises(OccupiedError, match="--overwrite"):
        predict(identity, [images], out, form=form)


def test_a_record_that_a_kill_has_cut_off_is_read_as_far_as_it_goes(
    identity: str, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(identity, [images], out)
    record = (out / RECORD).read_bytes()
    last = json.loads(record.splitlines()[-1])["name"]
    (out / RECORD).write_bytes(record[:-9])
    (out / last).unlink()  # the line comes before the name
    done = predict(identity, [images], out)
    assert [Path(path).name for path in done.written] == [last]
    assert len(predict(identity, [images], out).skipped) == 2


WANTED = {
    Form("png"): ("PNG", ".png"),
    Form("jpeg"): ("JPEG", ".jpg"),
    Form("jpeg", 20): ("JPEG", ".jpg"),
    Form("webp"): ("WEBP", ".webp"),
    Form("webp", 50): ("WEBP", ".webp"),
    Form("tiff"): ("TIFF", ".tif"),
    Form("bmp"): ("BMP", ".bmp"),
}


@pytest.mark.parametrize("form", WANTED, ids=str)
def test_results_have_the_format_that_was_asked_for(
    identity: str, tmp_path: Path, form: Form
) -> None:
    (tmp_path / "in").mkdir()
    for name, data in ODD.items():
        (tmp_path / "in" / name).write_bytes(data)
    done = predict(identity, [tmp_path / "in"], tmp_path / "out", form=form)
    assert done.failed == []
    kind, ending = WANTED[form]
    for (name, data), path in zip(ODD.items(), done.pictures, strict=True):
        header = read_header(Path(path).read_bytes(), path)
        assert (header.format, Path(path).suffix) == (kind, ending), name
        before, after = read_odd(data, name), read_odd(Path(path).read_bytes(), path)
        assert after.levels.shape[:2] == before.levels.shape[:2]
        if form.format in ("png", "tiff"):
            np.testing.assert_array_equal(after.levels, before.levels)
            assert (after.alpha is None) == (before.alpha is None)
    if form.format in ("jpeg", "bmp", "webp"):
        assert any("16 bits rounded to 8" in note for note in done.notes)


def test_the_same_format_keeps_name_and_kind(identity: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in ODD.items():
        (tmp_path / "in" / name).write_bytes(data)
    done = predict(identity, [tmp_path / "in"], tmp_path / "out", form=Form("same"))
    assert [Path(path).name for path in done.pictures] == list(ODD)
    for name, data in ODD.items():
        after = read_header((tmp_path / "out" / name).read_bytes(), name)
        assert after.format == read_header(data, name).format


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "same"])
def test_exif_stays_and_says_upright(identity: str, format: Format) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(buffer, "JPEG", exif=exif)
    derained = predict_bytes(identity, buffer.getvalue(), form=Form(format))
    assert read_header(derained, "it").size == (20, 30)
    with Image.open(io.BytesIO(derained)) as image:
        found = image.getexif()
        assert image.size == (20, 30)
    assert found[ExifTags.Base.Make] == "Maker"
    assert found[ExifTags.Base.Orientation] == 1


def test_alpha_is_flattened_on_white_where_a_format_has_none(identity: str) -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4, :, 3] = 255  # black above, transparent below
    derained = predict_bytes(identity, encoded(Image.fromarray(clear)), form=Form("bmp"))
    levels = read_odd(derained, "x").levels
    assert levels[:4].max() == 0
    assert levels[4:].min() == 255


def test_a_quality_without_losses_is_refused() -> None:
    with pytest.raises(UsageError, match="tiff has no losses"):
        Form("tiff", 80)
    with pytest.raises(UsageError, match="from 1 to 100"):
        Form("jpeg", 0)


def test_image_and_result_side_by_side(
    identity: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Identity, "derain", lambda _, image: 255 - image)
    predict(identity, [images], tmp_path / "out", form=Form("jpeg"), compare=True)
    rain = read_image(images / "0.png")
    both = read_image(tmp_path / "out/compare/0.jpg.png")
    np.testing.assert_array_equal(both, np.concatenate((rain, 255 - rain), axis=1))
    (images / "compare").mkdir()
    (images / "0.png").rename(images / "compare" / "0.png")
    with pytest.raises(UsageError, match="Rename the folder compare"):
        predict(identity, [images], tmp_path / "other", compare=True)


def test_a_pattern_names_its_images(identity: str, images: Path, tmp_path: Path) -> None:
    (images / "below").mkdir()
    (images / "1.png").rename(images / "below" / "1.png")
    done = predict(identity, [images / "**" / "*.png"], tmp_path / "out")
    assert [Path(path).name for path in done.pictures] == ["0.png", "1.png"]
    with pytest.raises(DataError, match="no such file"):
        predict(identity, [images / "*.jpg"], tmp_path / "out")
    strange = images / "a[1].png"
    (images / "0.png").rename(strange)
    assert len(predict(identity, [strange], tmp_path / "strange").pictures) == 1


@pytest.mark.soak
def test_killed_again_and_again_it_ends_as_if_undisturbed(trained: Any, tmp_path: Path) -> None:
    """SIGKILL after one result more each time, whatever the processes are doing then."""
    (tmp_path / "in").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number:02d}.png")
    model, out = trained.result["checkpoint"], tmp_path / "out"
    undisturbed = predict(model, [tmp_path / "in"], tmp_path / "whole")
    command = [sys.executable, "-m", "derain.cli", "predict", model, str(tmp_path / "in")]
    kills = 0
    for wanted in (1, 5, 9):
        process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("*.png"))) < wanted:
            time.sleep(0.001)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills
    done = predict(model, [tmp_path / "in"], out)
    assert done.skipped
    for path in undisturbed.pictures:
        assert (out / Path(path).name).read_bytes() == Path(path).read_bytes()
    assert len(list(out.glob("*.png"))) == 12
