"""Workers of Ray write what one process writes, go on after a stop, and outlive one of them."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from derain.errors import OccupiedError, UsageError
from derain.inference.exported import export
from derain.inference.predictor import save_model_folder
from derain.models import build
from derain.pipelines.predict import workers as module
from derain.pipelines.predict.record import RECORDS
from derain.pipelines.predict.verb import Predicted, predict
from derain.pipelines.predict.workers import Underained
from derain.pipelines.workers.plan import Workers
from tests.data.images.odd_images import VARIANTS
from tests.folders import noise_image
from tests.pipelines.evaluate.work.deadly import KILLING, deadly

OPTIONS = {"width": 8, "encoder_blocks": [1], "decoder_blocks": [1], "middle_blocks": 1}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network that changes its images."""
    torch.manual_seed(0)
    network = build("nafnet", **OPTIONS)
    for values in network.parameters():
        values.data += 0.1 * torch.rand_like(values)
    return str(save_model_folder(network, tmp_path_factory.mktemp("model"), "nafnet", OPTIONS))


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Images in two folders, of which one is broken, one has 16 bits and one is turned; a video."""
    folder = tmp_path / "in"
    (folder / "night").mkdir(parents=True)
    for number in range(4):
        noise_image(number, True, width=40 + number, height=32).save(folder / f"{number}.png")
    (folder / "night" / "0.tif").write_bytes(VARIANTS["TIFF of 16 bits"])
    (folder / "night" / "1.png").write_bytes(b"broken")
    (folder / "night" / "2.jpg").write_bytes(VARIANTS["JPEG of orientation 6"])
    with av.open(str(tmp_path / "street.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(5):
            levels = np.full((32, 32, 3), 60 + 4 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(levels, format="rgb24")))
        out.mux(stream.encode(None))
    return [folder, tmp_path / "street.mp4"]


def files(out: Path) -> dict[str, bytes | list[int]]:
    """What a call has written, without its records; of videos the times of the frames, as encoders
    do not always write the same bytes."""
    records = set(out.glob(RECORDS))
    found = (path for path in out.rglob("*") if path.is_file() and path not in records)
    return {
        str(path.relative_to(out)): times(path) if path.suffix == ".mp4" else path.read_bytes()
        for path in found
    }


def times(path: Path) -> list[int]:
    with av.open(str(path)) as video:
        return [frame.pts for frame in video.decode(video=0)]


def below(out: Path, done: Predicted) -> dict[str, object]:
    """The result of a call, with paths below its folder."""
    text = json.dumps({**vars(done), "seconds": 0}, default=vars_of)
    return json.loads(text.replace(f"{out}/", ""))


def vars_of(item: object) -> dict[str, object]:
    return {"path": item.path, "reason": item.reason}  # type: ignore[attr-defined]


@pytest.fixture
def one_thread() -> None:
    """As workers on a CPU compute; `make test` gives each of its processes one, too."""
    torch.set_num_threads(1)


@pytest.mark.usefixtures("ray_cluster", "one_thread")
def test_two_workers_write_what_one_process_writes(
    model: str, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = predict(model, inputs, tmp_path / "a", compare=True)
    several = predict(model, inputs, tmp_path / "b", compare=True, workers=2)
    assert len(alone.written) == 7
    assert [Path(item.path).name for item in alone.failed] == ["1.png"]
    assert any("turned upright" in note for note in alone.notes)
    assert below(tmp_path / "b", several) == below(tmp_path / "a", alone)
    assert files(tmp_path / "b") == files(tmp_path / "a")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)  # no other machine may join
    with pytest.raises(UsageError, match="--workers 99"):
        predict(model, inputs, tmp_path / "c", workers=99)


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster", "one_thread")
def test_workers_go_on_where_any_call_was(model: str, inputs: list[Path], tmp_path: Path) -> None:
    """A result that has no line yet, because its worker was stopped, has no name either."""
    out = tmp_path / "out"
    predict(model, [inputs[0] / "0.png"], out)
    first = predict(model, inputs, out, workers=None)
    assert len(first.written) == 6
    assert len(first.skipped) == 1
    before = files(out)
    (out / "2.png").unlink()
    (out / "street.mp4").unlink()
    second = predict(model, inputs, out, workers=2)
    assert [Path(path).name for path in second.written] == ["2.png", "street.mp4"]
    assert len(second.skipped) == 5
    assert files(out) == before
    assert len(predict(model, inputs, out).skipped) == 7
    (out / "3.png").write_bytes(b"mine")
    with pytest.raises(OccupiedError, match=r"3\.png"):
        predict(model, inputs, out, workers=2)
    assert (out / "3.png").read_bytes() == b"mine"


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster", "one_thread")
def test_an_exported_file_is_loaded_by_each_worker(inputs: list[Path], tmp_path: Path) -> None:
    network = export(build("nafnet", **OPTIONS), tmp_path / "net.onnx", "onnx")
    predict(str(network), inputs[:1], tmp_path / "a")
    predict(str(network), inputs[:1], tmp_path / "b", workers=2)
    assert files(tmp_path / "b") == files(tmp_path / "a")


def test_nothing_to_do_starts_no_ray(
    model: str, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(model, [inputs[0] / "0.png"], tmp_path / "out")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    done = predict(model, [inputs[0] / "0.png"], tmp_path / "out", workers=2)
    assert len(done.skipped) == 1


def test_chunks_have_every_file_once_and_videos_are_first_and_alone() -> None:
    names = ["a.png", "b.mp4", *(f"{number}.png" for number in range(99))]
    left = Underained({name: Path(name) for name in names})
    chunks = left.chunks(8)
    assert sorted(name for chunk in chunks for name in chunk) == sorted(names)
    assert chunks[0] == {"b.mp4": "b.mp4"}
    assert max(map(len, chunks)) == 8
    left.take("b.mp4")
    assert len(left) == 100
    assert "b.mp4" not in left.chunks(1)[0]


def test_workers_on_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = [module.nodes.Node("10.0.0.1", 8, 2), module.nodes.Node("10.0.0.2", 4, 0)]
    monkeypatch.setattr(module.nodes, "nodes", lambda: machines)
    whole = module._memory_share(Workers(count=2, cpus=4, gpus=1))
    assert module._memory_share(Workers(count=2, cpus=1, gpus=0)) == whole / 2
    assert module._memory_share(Workers(count=12, cpus=1, gpus=0)) == whole / 8


@pytest.fixture
def eight(tmp_path: Path) -> Path:
    """Eight images, of which `Deadly` dies at one."""
    folder = tmp_path / "eight"
    folder.mkdir()
    for number in range(8):
        image = noise_image(number, True, width=41, height=33)
        image.save(folder / f"{number:03d}.png")
    return folder


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_dies_costs_its_images_a_second_try(
    eight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = deadly(tmp_path, always=False)
    with caplog.at_level(logging.WARNING, "derain"):
        several = predict(model, [eight], tmp_path / "b", workers=2, trust=True)
    assert (tmp_path / "marker").exists()
    assert several.failed == []
    assert len(several.written) == 8
    assert "a worker died" in caplog.text
    predict(model, [eight], tmp_path / "a", trust=True)
    assert files(tmp_path / "b") == files(tmp_path / "a")


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_an_image_that_always_kills_its_worker_costs_only_itself(
    eight: Path, tmp_path: Path
) -> None:
    model = deadly(tmp_path, always=True)
    done = predict(model, [eight], tmp_path / "out", workers=2, trust=True)
    (failed,) = done.failed
    assert failed.path == str(eight / f"{KILLING}.png")
    assert "died 6 times" in failed.reason
    assert len(done.written) == 7
    assert not (tmp_path / "out" / f"{KILLING}.png").exists()


@pytest.mark.soak
@pytest.mark.xdist_group("ray")
def test_killed_with_its_workers_it_goes_on(model: str, tmp_path: Path) -> None:
    """SIGKILL for the command, whose Ray ends with it."""
    (tmp_path / "in").mkdir()
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number:02d}.png")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "derain.cli", "predict", model, str(tmp_path / "in")]
    environment = {name: it for name, it in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [*command, "--out", str(out), "--workers", "2"], stderr=subprocess.DEVNULL, env=environment
    )
    while process.poll() is None and len(list(out.glob("*.png"))) < 3:
        time.sleep(0.001)
    assert process.poll() is None, "it ended before it was killed"
    process.kill()
    process.wait()
    done = subprocess.run(
        [*command, "--out", str(out), "--workers", "2", "--json"],
        env=environment,
        capture_output=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert len(found["skipped"]) >= 3
    assert len(found["pictures"]) == 24
    torch.set_num_threads(1)
    predict(model, [tmp_path / "in"], tmp_path / "whole")
    assert files(out).items() >= files(tmp_path / "whole").items()
