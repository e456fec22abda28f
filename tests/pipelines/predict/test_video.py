"""Videos through `predict`: frames, timestamps and sound stay, pixels change."""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
import torch
from PIL import Image

from derain.errors import OccupiedError
from derain.pipelines.predict import verb as module
from derain.pipelines.predict.verb import predict

WIDTH, HEIGHT = 64, 48
MS = Fraction(1, 1000)


class Halved:
    """A predictor that halves every level."""

    network = torch.nn.Identity()

    def derain(self, image: np.ndarray) -> np.ndarray:
        return image // 2


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module, "load_predictor", lambda *_, **__: Halved())
    return "any"


class Facts(NamedTuple):
    times: list[Fraction]
    size: tuple[int, int]
    means: list[float]
    sound: list[bytes]
    duration: int
    codec: str


def facts(path: Path) -> Facts:
    with av.open(str(path)) as video:
        frames = [
            (f.pts * f.time_base, (f.width, f.height), f.to_ndarray(format="rgb24").mean())
            for f in video.decode(video=0)
        ]
    with av.open(str(path)) as video:
        codec = video.streams.video[0].codec_context.name
        sound = [bytes(p) for p in video.demux(audio=0) if p.dts is not None]
        times, sizes, means = zip(*frames, strict=True)
        return Facts(list(times), sizes[0], list(means), sound, video.duration, codec)


def write_video(path: Path, codec: str = "libx264", sound: str = "aac", frames: int = 30) -> Path:
    """Frames of growing brightness, from dark to bright every 40, at uneven times, and a tone."""
    with av.open(str(path), "w") as out:
        picture: Any = out.add_stream(codec, rate=25)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        picture.codec_context.time_base = picture.time_base = MS
        tone: Any = out.add_stream(sound, rate=48000)
        tone.codec_context.layout = "mono"
        at_ms = 0
        for number in range(frames):
            levels = np.full((HEIGHT, WIDTH, 3), 60 + 4 * number % 160, np.uint8)
            frame = av.VideoFrame.from_ndarray(levels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = at_ms, MS
            at_ms += 40 if number % 3 else 55
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
        for number in range(frames):
            wave = np.sin(np.arange(1920) * 0.05 + number) * 9000
            piece = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            piece.sample_rate, piece.pts, piece.time_base = 48000, number * 1920, Fraction(1, 48000)
            out.mux(tone.encode(piece))
        out.mux(tone.encode(None))
    return path


def write_moving_video(path: Path, codec: str) -> Path:
    """40 frames of 322 x 242 px (no multiple of a block) that move across smooth noise."""
    width, height = 322, 242
    coarse = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    street = np.asarray(Image.fromarray(coarse).resize((384, 256), Image.Resampling.BICUBIC))
    with av.open(str(path), "w") as out:
        picture: Any = out.add_stream(codec, rate=25)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        for at in range(40):
            view = np.ascontiguousarray(street[at // 3 :, at:][:height, :width])
            out.mux(picture.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        out.mux(picture.encode(None))
    return path


@pytest.mark.parametrize("frames", [30, pytest.param(200, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("ending", "codec", "sound"),
    [
        (".mp4", "libx264", "aac"),
        (".webm", "libvpx-vp9", "libopus"),
        (".mkv", "libvpx", "libopus"),
        (".mov", "libx265", "aac"),
    ],
)
def test_frames_times_and_sound_stay(
    halved: str, tmp_path: Path, ending: str, codec: str, sound: str, frames: int
) -> None:
    source = write_video(tmp_path / f"street{ending}", codec, sound, frames)
    done = predict(halved, [source], tmp_path / "out")
    assert done.failed == []
    assert done.pictures == [str(tmp_path / "out" / f"street{ending}")]
    before, after = facts(source), facts(Path(done.pictures[0]))
    assert len(after.times) == frames
    assert after.times == before.times
    assert after.sound == before.sound
    assert (after.size, after.codec) == (before.size, before.codec)
    assert after.duration == before.duration
    np.testing.assert_allclose(after.means, np.divide(before.means, 2), atol=2)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("ending", "codec"), [(".mp4", "libx264"), (".webm", "libvpx-vp9"), (".mkv", "libvpx")]
)
def test_a_video_has_the_same_bytes_each_time(
    halved: str, tmp_path: Path, ending: str, codec: str
) -> None:
    """Of 60 runs, because libx264 wrote other bytes in some of them."""
    source = write_moving_video(tmp_path / f"street{ending}", codec)
    made = set()
    for number in range(60):
        done = predict(halved, [source], tmp_path / f"out{number}")
        made.add(Path(done.pictures[0]).read_bytes())
    assert len(made) == 1


def test_the_process_keeps_its_scheduling(halved: str, tmp_path: Path) -> None:
    """SVT-AV1 does not leave it: it starved a whole machine."""
    before = os.sched_getscheduler(0)
    source = write_video(tmp_path / "street.mp4", frames=5)
    predict(halved, [source], tmp_path / "out")
    tasks = [int(path.name) for path in Path("/proc/self/task").iterdir()]
    assert {os.sched_getscheduler(task) for task in tasks} == {before}


def test_a_video_is_turned_upright(halved: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / "phone.mp4", frames=5)
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 44  # the matrix of the first track
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in quarter)
    source.write_bytes(data)
    done = predict(halved, [source], tmp_path / "out")
    assert facts(Path(done.pictures[0])).size == (HEIGHT, WIDTH)
    assert any("turned upright" in note for note in done.notes)


def test_videos_and_images_go_together_and_again(halved: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=5)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    inputs = [tmp_path / "*.mp4"]
    done = predict(halved, inputs, tmp_path / "out")
    assert [Path(path).name for path in done.written] == ["a.mp4"]
    assert "not a readable video" in done.failed[0].reason
    assert not (tmp_path / "out" / "b.mp4").exists()
    assert predict(halved, [source], tmp_path / "out").skipped == [str(tmp_path / "out" / "a.mp4")]
    write_video(source, frames=6)
    with pytest.raises(OccupiedError, match=r"a\.mp4"):
        predict(halved, [source], tmp_path / "out")


def test_avi_becomes_matroska_as_it_has_no_timestamps(halved: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / "old.avi", "mpeg4", "mp3", frames=6)
    done = predict(halved, [source], tmp_path / "out")
    assert [Path(path).name for path in done.pictures] == ["old.mkv"]
    before, after = facts(source), facts(Path(done.pictures[0]))
    assert len(after.times) == len(before.times)
    assert after.sound == before.sound
    assert any("mpeg4 to H.264" in note for note in done.notes)
