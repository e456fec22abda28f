"""Every verb that reads images is given one folder of odd entries; one table says what becomes of
each."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from derain.data.images.convert import read_odd
from derain.data.prepared.manifest import open_prepared
from derain.data.synthetic.synthesis import synthesize
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.leaks.verb import leaks
from derain.pipelines.predict.verb import predict
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.verify import verify
from tests.data.images.odd_images import NOISE, PIXELS, VARIANTS, camera_jpeg, encoded, jpeg_with

CLEAN = encoded(Image.fromarray(PIXELS // 2))

USED, OUT, NOTED = "used", "left out", "noted"

# file: (content, or what makes it), then what becomes of it in
# prepare, prepare --convert, predict, synthesize
TABLE: dict[str, tuple[bytes | Callable[[Path], object], str, str, str, str]] = {
    "plain.png": (encoded(NOISE), USED, USED, USED, USED),
    "grey.png": (encoded(NOISE.convert("L")), USED, USED, USED, USED),
    "palette.png": (encoded(NOISE.convert("P")), USED, USED, USED, USED),
    "plain.bmp.bmp": (encoded(NOISE, "BMP"), USED, USED, USED, USED),
    "modern.webp": (encoded(NOISE, "WEBP"), USED, USED, USED, USED),
    "upper.JPG": (encoded(NOISE, "JPEG"), USED, USED, USED, USED),
    "browser.jfif": (encoded(NOISE, "JPEG"), USED, USED, USED, USED),
    "old.jpe": (encoded(NOISE, "JPEG"), USED, USED, USED, USED),
    "camera.jpg": (camera_jpeg(), USED, USED, USED, USED),
    "jpeg-called.png": (encoded(NOISE, "JPEG"), USED, USED, USED, USED),
    "history.png": (VARIANTS["PNG with a text of 2 MiB"], USED, USED, USED, USED),
    "printer.png": (VARIANTS["PNG with a profile of 2 MiB"], USED, USED, USED, USED),
    "short-chunks.png": (VARIANTS["PNG with short chunks"], USED, USED, USED, USED),
    "photoshop.jpg": (VARIANTS["JPEG with Photoshop junk"], USED, USED, USED, USED),
    "orientation-0.jpg": (VARIANTS["JPEG of orientation 0"], USED, USED, USED, USED),
    "orientation-9.jpg": (VARIANTS["JPEG of orientation 9"], USED, USED, USED, USED),
    "upside-down.jpg": (VARIANTS["JPEG of orientation 3"], OUT, USED, USED, USED),
    "byte-orientation.jpg": (jpeg_with((0xE1, b"Exif\0\0" + b"")), USED, USED, USED, USED),
    "deep.tif": (VARIANTS["TIFF of 16 bits"], OUT, USED, USED, USED),
    "deep.png.png": (VARIANTS["PNG of 16 bits"], OUT, USED, USED, USED),
    "deep-grey.tiff": (VARIANTS["grey TIFF of 16 bits"], OUT, USED, USED, USED),
    "wide.png": (VARIANTS["PNG in Display P3"], OUT, USED, USED, USED),
    "cmyk.jpg": (encoded(NOISE.convert("CMYK"), "JPEG"), OUT, USED, USED, USED),
    "alpha.png": (encoded(NOISE.convert("RGBA")), OUT, USED, USED, USED),
    "ycbcr.tif": (VARIANTS["TIFF, YCbCr"], OUT, USED, USED, USED),
    "lab.tif": (VARIANTS["TIFF, Lab"], OUT, OUT, OUT, OUT),
    "animated.webp": (
        encoded(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(90)]),
        OUT, OUT, OUT, OUT,
    ),
    "half.png": (encoded(NOISE)[:900], OUT, OUT, OUT, OUT),
    "zeros.png": (bytes(2000), OUT, OUT, OUT, OUT),
    "empty.png": (b"", OUT, OUT, OUT, OUT),
    "text.png": (b"not an image at all", OUT, OUT, OUT, OUT),
    "pipe.png": (os.mkfifo, OUT, OUT, OUT, OUT),
    "socket.png": (lambda path: _socket(path), OUT, OUT, OUT, OUT),
    "dangling.png": (lambda path: path.symlink_to("nowhere"), OUT, OUT, OUT, OUT),
    "itself.png": (lambda path: path.symlink_to(path.name), OUT, OUT, OUT, OUT),
    "folder.png": (lambda path: path.mkdir(), NOTED, NOTED, NOTED, NOTED),
    "phone.heic": (b"\0\0\0\x18ftypheic", NOTED, NOTED, NOTED, NOTED),
    "web.avif": (b"\0\0\0\x18ftypavif", NOTED, NOTED, NOTED, NOTED),
    "web.gif": (encoded(NOISE, "GIF"), NOTED, NOTED, NOTED, NOTED),
    "raw.nef": (b"II*\0raw", NOTED, NOTED, NOTED, NOTED),
    "nameless": (encoded(NOISE), NOTED, NOTED, NOTED, NOTED),
    "Z\u00fcrich.png": (encoded(NOISE), USED, USED, USED, USED),
    "\u96e8" * 80 + ".png": (encoded(NOISE), USED, USED, USED, USED),
    "a b&c#d?e%20f.png": (encoded(NOISE), USED, USED, USED, USED),
    os.fsdecode(b"\xd3\xea.png"): (encoded(NOISE), OUT, OUT, USED, USED),
}  # fmt: skip
VERBS = ("prepare", "convert", "predict", "synthesize")


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rainy images of the table, and a plain clean image for each that can have one."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "rain").mkdir()
    (folder / "clean").mkdir()
    for name, (content, *_) in TABLE.items():
        if isinstance(content, bytes):
            (folder / "rain" / name).write_bytes(content)
        else:
            content(folder / "rain" / name)
        stem = name.rpartition(".")[0] or name
        (folder / "clean" / f"{stem}.png").write_bytes(CLEAN)
    return folder


def printed(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def fate(name: str, used: set[str], left_out: set[str], notes: str) -> str | None:
    """What a command says about an entry, None if it says nothing."""
    said = [
        USED if name in used else None,
        OUT if printed(name) in left_out else None,
        NOTED if printed(name) in notes else None,
    ]
    return next((what for what in said if what), None)


def expected(verb: str) -> dict[str, str]:
    return {name: row[1 + VERBS.index(verb)] for name, row in TABLE.items()}


def check(verb: str, used: set[str], left_out: set[str], notes: str) -> None:
    found = {name: fate(name, used, left_out, notes) for name in TABLE}
    # notes count: each kind of entry names one example
    vague = {name for name, what in expected(verb).items() if what == NOTED and not found[name]}
    assert len(vague) <= len(UNREAD) - 1
    assert found | dict.fromkeys(vague, NOTED) == expected(verb)


UNREAD = ("phone.heic", "web.avif", "web.gif", "raw.nef")


def base_names(paths: list[str]) -> set[str]:
    return {path.rpartition("/")[2] for path in paths}


@pytest.fixture(scope="module", params=[False, True], ids=["prepare", "convert"])
def prepared(
    request: pytest.FixtureRequest,
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
    ray_cluster: None,  # noqa: ARG001
) -> tuple[str, Any]:
    out = tmp_path_factory.mktemp("prepared") / "out"
    verb = "convert" if request.param else "prepare"
    return verb, prepare("paired", source, out, convert=request.param)


def test_prepare_says_what_became_of_every_entry(prepared: tuple[str, Any]) -> None:
    verb, done = prepared
    rows = open_prepared(done.folder).column("rain_source").tolist()
    rainy = [it["path"] for it in done.quarantined if it["path"].startswith("rain/")]
    left_out = base_names(rainy)
    check(verb, base_names(rows), left_out, "\n".join(done.notes))
    counted = len(rows) + len(left_out)
    assert counted == sum(what in (USED, OUT) for what in expected(verb).values())


def test_what_was_prepared_is_intact_scored_and_compared(
    prepared: tuple[str, Any], trained: Any
) -> None:
    _, done = prepared
    assert verify(done.folder).ok
    result = evaluate(trained.result["checkpoint"], [done.folder])
    (scores,) = result["datasets"]
    assert scores["pictures"] == done.pairs
    assert result["left_out"] == []
    assert leaks(done.folder, done.folder).left_out == {"train": [], "test": []}


def test_converted_images_are_those_of_the_rules(prepared: tuple[str, Any], source: Path) -> None:
    from derain.data.images.decode import decode_image
    from derain.data.prepared.shards import read_member

    verb, done = prepared
    dataset = open_prepared(done.folder)
    for row in dataset.index.to_pylist():
        with (dataset.folder / row["shard"]).open("rb") as tar:
            stored = read_member(tar, row["rain_offset"], row["rain_length"])
        data = (source / row["rain_source"]).read_bytes()
        odd = read_odd(data, "x")
        np.testing.assert_array_equal(decode_image(stored, "x"), odd.plain())
        assert (stored == data) == (not odd.changes()), row["rain_source"]
    notes = "\n".join(done.notes)
    assert ("16 bits rounded to 8: 3" in notes) == (verb == "convert")


def test_predict_says_what_became_of_every_entry(
    source: Path, trained: Any, tmp_path: Path
) -> None:
    done = predict(trained.result["checkpoint"], [source / "rain"], tmp_path / "out")
    written = base_names(done.pictures)
    used = {name for name in TABLE if {f"{_stem(name)}.png", f"{name}.png"} & written}
    failed = base_names([printed(item.path) for item in (*done.failed, *done.left_out)])
    check("predict", used - failed, failed, "\n".join(done.notes))
    assert len(done.pictures) == sum(what == USED for what in expected("predict").values())


def test_synthesize_says_what_became_of_every_entry(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photographs = len(TABLE)
    done = synthesize(source / "rain", tmp_path / "out", count=photographs, seed=0, density="light")
    said = "\n".join(record.getMessage() for record in caplog.records)
    scenes = set(done.scenes)
    used = {
        name
        for name in TABLE
        if os.fsencode(_stem(name)).decode("utf-8", "replace")[:70].replace("\ufffd", "_")
        in {scene[:70] for scene in scenes}
    }
    failed = base_names([printed(item.path) for item in done.left_out])
    passed = {name for name in TABLE if not isinstance(TABLE[name][0], bytes)} - {"folder.png"}
    check("synthesize", used - failed - passed, failed | passed, said)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name
