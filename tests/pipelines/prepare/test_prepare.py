"""`prepare`: the manifest is written last, bytes are unchanged, unusable images are named."""

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import ray.data
import webdataset
from PIL import Image

from derain.data.prepared.card import CROISSANT
from derain.data.prepared.index import INDEX
from derain.data.prepared.manifest import MANIFEST, open_prepared
from derain.errors import DataError, OccupiedError, StoppedError, StorageError
from derain.pipelines.prepare.finished_shards import PARTS
from derain.pipelines.prepare.verb import PreparedSummary, prepare
from derain.pipelines.verify import verify
from tests.pipelines.prepare.unfinished import index_cannot_be_written

PairedFolder = Callable[..., Path]
SHARDS = 3


@pytest.fixture
def source(paired_folder: PairedFolder) -> Path:
    """Pairs of noise of more than a MiB each, so that every pair fills a shard."""
    return paired_folder(SHARDS, width=450, height=420)


def prepared(source: Path, out: Path, **options: bool) -> PreparedSummary:
    return prepare("paired", source, out, shard_mib=1, **options)


def tars(folder: Path) -> list[Path]:
    """The shards in a folder, in their order."""
    return sorted(folder.glob("*.tar"))


def contents(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != INDEX
    }


@pytest.mark.usefixtures("ray_cluster")
def test_other_readers_find_the_bytes_of_the_source(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = prepared(source, out)
    names = [str(path) for path in tars(out)]
    assert (done.pairs, done.shards, len(names)) == (SHARDS, SHARDS, SHARDS)
    assert done.bytes == sum(Path(name).stat().st_size for name in names)
    assert done.manifest_sha256 == hashlib.sha256((out / MANIFEST).read_bytes()).hexdigest()
    original = {
        (path.stem, side): path.read_bytes()
        for side in ("rain", "clean")
        for path in (source / side).iterdir()
    }
    samples = list(webdataset.WebDataset(names, shardshuffle=False))
    read = {(item["__key__"], side): item[f"{side}.png"] for item in samples for side in SIDES}
    assert read == original
    rows = ray.data.read_webdataset(names, decoder=None).take_all()
    assert {
        (row["__key__"], side): row[f"{side}.png"] for row in rows for side in SIDES
    } == original
    assert {json.loads(row["json"])["width"] for row in rows} == {450}
    table = datasets.load_dataset(
        "webdataset", data_files={"train": names}, split="train", cache_dir=str(tmp_path / "hf")
    ).cast_column("rain.png", datasets.Image(decode=False))
    table = table.cast_column("clean.png", datasets.Image(decode=False))
    assert {
        (row["__key__"], side): row[f"{side}.png"]["bytes"] for row in table for side in SIDES
    } == original


SIDES = ("rain", "clean")


def with_resolution(data: bytes, value: int) -> bytes:
    """The same PNG with a pHYs chunk, whose length does not depend on the value."""
    body = b"pHYs" + bytes([value] * 9)
    chunk = struct.pack(">I", 9) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


@pytest.mark.usefixtures("ray_cluster")
def test_an_interrupted_call_continues_to_the_same_bytes(source: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = prepared(source, whole)
    with index_cannot_be_written(broken):
        prepared(source, broken)
    assert not (broken / MANIFEST).exists()
    with pytest.raises(DataError, match="not a finished prepared dataset"):
        open_prepared(broken)

    first, _, third = tars(broken)
    first.unlink()
    (broken / PARTS / "000001.parquet").write_bytes(b"")
    kept = third.stat().st_mtime_ns
    done = prepared(source, broken)
    assert done.manifest_sha256 == expected.manifest_sha256
    assert contents(broken) == contents(whole)
    assert third.stat().st_mtime_ns == kept
    assert not (broken / PARTS).exists()
    assert len(open_prepared(broken)) == SHARDS


@pytest.mark.usefixtures("ray_cluster")
def test_a_shard_that_cannot_be_written_is_one_message(source: Path, tmp_path: Path) -> None:
    """The soak test fills a disk; here a folder has the name of a shard."""
    out, whole = tmp_path / "out", prepared(source, tmp_path / "whole")
    name = tars(tmp_path / "whole")[1].name
    (out / name).mkdir(parents=True)
    (out / PARTS).mkdir()
    expected = rf"^\S+/out/{name}: Is a directory\. .*then run the same `derainctl prepare`"
    with pytest.raises(StorageError, match=expected):
        prepared(source, out)
    assert not (out / MANIFEST).exists()
    (out / name).rmdir()
    assert prepared(source, out).manifest_sha256 == whole.manifest_sha256


@pytest.mark.usefixtures("ray_cluster")
def test_a_finished_dataset_is_reused_and_logged(
    paired_folder: PairedFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    source, out = paired_folder(2), tmp_path / "out"
    first = prepared(source, out)
    times = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / PARTS).mkdir()  # as if killed after writing the manifest
    (out / PARTS / "000000.parquet").touch()
    (out / f".{tars(out)[0].name}.0123abcd.tmp").touch()
    lost = (out / CROISSANT).read_bytes()
    (out / CROISSANT).unlink()
    second = prepared(source, out)
    assert (first.reused, second.reused) == (False, True)
    assert first.manifest_sha256 == second.manifest_sha256
    assert (out / CROISSANT).read_bytes() == lost
    times[CROISSANT] = (out / CROISSANT).stat().st_mtime_ns
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times
    assert "nothing to do" in caplog.text
    with pytest.raises(OccupiedError, match="other settings: split train there, test here "):
        prepare("paired", source, out, split="test", shard_mib=1)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == times


@pytest.mark.usefixtures("ray_cluster")
def test_unusable_images_are_named_and_left_out(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(4)
    (source / "rain" / "000.png").write_bytes(b"not an image")
    Image.new("RGB", (10, 32)).save(source / "clean" / "001.png")
    Image.new("RGB", (40, 32)).save(source / "clean" / "alone.png")
    strict = tmp_path / "strict"
    with pytest.raises(DataError, match=r"clean/alone\.png"):
        prepared(source, strict, strict=True)
    assert not strict.exists()
    (source / "clean" / "alone.png").unlink()
    with pytest.raises(DataError, match=r"rain/000\.png(?s:.*)10 x 32"):
        prepared(source, strict, strict=True)
    assert not (strict / MANIFEST).exists()
    unusable = tmp_path / "unusable"
    shutil.copytree(source, unusable)
    shutil.copy(source / "rain" / "002.png", source / "rain" / "000.png")
    shutil.copy(source / "clean" / "002.png", source / "clean" / "001.png")
    assert prepared(source, strict, strict=True).pairs == 4

    source = unusable
    Image.new("RGB", (40, 32)).save(source / "clean" / "alone.png")
    done = prepared(source, tmp_path / "out")
    reasons = {item["path"]: item["reason"] for item in done.quarantined}
    assert set(reasons) == {"rain/000.png", "rain/001.png", "clean/alone.png"}
    assert "40 x 32" in reasons["rain/001.png"]
    assert "10 x 32" in reasons["rain/001.png"]
    with tarfile.open(*tars(tmp_path / "out")) as tar:
        assert {name.split(".")[0] for name in tar.getnames()} == {"002", "003"}
    listed = json.loads((tmp_path / "out" / MANIFEST).read_text())["quarantined"]
    assert listed == done.quarantined
    (source / "clean" / "alone.png").unlink()
    with pytest.raises(DataError, match="3 images cannot be used"):
        prepared(source, tmp_path / "out", strict=True)


@pytest.mark.usefixtures("ray_cluster")
def test_nothing_usable_is_an_error(paired_folder: PairedFolder, tmp_path: Path) -> None:
    source = paired_folder(1)
    (source / "rain" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match="no pair can be used"):
        prepared(source, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_folder_with_other_files_is_left_alone(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(OccupiedError, match="not empty"):
        prepared(paired_folder(1), out)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]
    with pytest.raises(OccupiedError, match=r"thesis\.tex: is a file"):
        prepared(tmp_path / "source", out / "thesis.tex")


@pytest.mark.usefixtures("ray_cluster")
def test_an_unfinished_dataset_of_another_plan_is_left_alone(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    (tmp_path / "out" / PARTS).mkdir(parents=True)
    source, note = paired_folder(1), tmp_path / "out" / PARTS / "plan"
    for text, difference in (
        ("another", "an unfinished dataset of another"),
        ('{"names": "", "settings": {"shard_mib": 9}}', "shard_mib 9 there, 1 here"),
    ):
        note.write_text(text)
        with pytest.raises(OccupiedError, match=difference):
            prepared(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("dataset", "folder", "named"),
    [
        ("rain9000", ".", "rain9000"),
        ("paired", "nowhere", "nowhere"),
        ("paired", ".", "derainctl datasets paired"),
    ],
)
def test_a_wrong_source_is_named(dataset: str, folder: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(named)):
        prepare(dataset, tmp_path / folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_a_lost_manifest_is_written_again(paired_folder: PairedFolder, tmp_path: Path) -> None:
    source, out = paired_folder(5), tmp_path / "out"
    first = prepare("paired", source, out, shard_mib=1)
    before = {path.name: path.read_bytes() for path in tars(out)}
    (out / "manifest.json").unlink()
    again = prepare("paired", source, out, shard_mib=1)
    assert again.manifest_sha256 == first.manifest_sha256
    assert {path.name: path.read_bytes() for path in tars(out)} == before


@pytest.mark.usefixtures("ray_cluster")
def test_an_image_that_changed_during_an_interruption_is_read_again(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain")
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    image = source / "rain" / "001.png"
    data = image.read_bytes()
    image.write_bytes(with_resolution(data, 1))
    with index_cannot_be_written(broken):
        prepared(source, broken)
    stat = image.stat()
    image.write_bytes(with_resolution(data, 2))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = prepared(source, broken)
    assert "writing shard 1 again" in caplog.text
    assert "(2 kept)" in caplog.text
    assert done.manifest_sha256 == prepared(source, whole).manifest_sha256
    assert contents(broken) == contents(whole)


@pytest.mark.usefixtures("ray_cluster")
def test_a_shard_without_usable_pairs_is_removed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with index_cannot_be_written(out):
        prepared(source, out)
    (source / "rain" / "002.png").write_bytes(b"not an image")
    assert prepared(source, out).shards == 2
    assert len(tars(out)) == 2
    assert verify(out).ok


@pytest.mark.usefixtures("ray_cluster")
def test_sigterm_stops_it_with_one_message_and_it_can_continue(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain")

    class Terminates(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "writing" in record.getMessage():
                signal.raise_signal(signal.SIGTERM)

    handler, before = Terminates(), signal.getsignal(signal.SIGTERM)
    logging.getLogger("derain").addHandler(handler)
    try:
        with pytest.raises(StoppedError, match=r"out: stopped\. To continue, run"):
            prepared(source, tmp_path / "out")
    finally:
        logging.getLogger("derain").removeHandler(handler)
    assert signal.getsignal(signal.SIGTERM) == before
    assert prepared(source, tmp_path / "out").pairs == SHARDS


@pytest.mark.usefixtures("ray_cluster")
def test_equal_images_are_reported(
    paired_folder: PairedFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = paired_folder(4)
    shutil.copy(source / "rain/000.png", source / "rain/003.png")
    shutil.copy(source / "clean/000.png", source / "clean/003.png")
    for number in range(7):
        shutil.copy(source / "rain/000.png", source / f"rain/alone{number}.png")
    done = prepared(source, tmp_path / "out")
    assert ["2 clean files hold 1 image" in note for note in done.notes] == [True]
    assert len(done.quarantined) == 7
    assert caplog.text.count("left out rain/alone") == 5
    assert "and 2 more: see manifest.json" in caplog.text
    assert done.duplicates == [["rain/000.png", "rain/003.png"]]
    assert open_prepared(tmp_path / "out").manifest.duplicates == (tuple(done.duplicates[0]),)


@pytest.mark.usefixtures("ray_cluster")
def test_decoding_finds_damage_without_a_wrong_checksum(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(2)
    short = zlib.compress(bytes(500))  # of 32 rows of 121 bytes
    whole = (source / "rain/001.png").read_bytes()
    body = b"IDAT" + short
    chunk = struct.pack(">I", len(short)) + body + struct.pack(">I", zlib.crc32(body))
    (source / "rain/001.png").write_bytes(whole[:33] + chunk + whole[-12:])
    assert prepared(source, tmp_path / "inspected").quarantined == []
    (left_out,) = prepared(source, tmp_path / "decoded", decode=True).quarantined
    assert left_out["path"] == "rain/001.png"


@pytest.mark.usefixtures("ray_cluster")
def test_a_changed_image_is_noticed(paired_folder: PairedFolder, tmp_path: Path) -> None:
    source, out = paired_folder(3), tmp_path / "out"
    prepare("paired", source, out)
    image = source / "rain" / "001.png"
    image.touch()
    assert prepare("paired", source, out).reused
    data = bytearray(image.read_bytes())
    data[-20] ^= 1  # with the same length
    image.write_bytes(data)
    with pytest.raises(OccupiedError, match=r"before rain/001\.png or clean/001\.png changed"):
        prepare("paired", source, out)
