"""A shard: standard WebDataset, reproducible bytes, correct offsets in the index."""

import hashlib
import io
import json
import resource
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from derain.data.images.decode import decode_image, encode_png
from derain.data.prepared import integrity
from derain.data.prepared.shards import (
    BLOCK,
    ShardLimits,
    WrittenShards,
    end,
    header,
    packed_size,
    read_member,
    write_shards,
)
from derain.data.sources.discover import find_pairs
from derain.errors import DataError
from tests.folders import PairedFolder, noise_image, write_scenes


def shard_of(source: Path, path: Path) -> WrittenShards:
    return write_shards(find_pairs("paired", source).pairs, source, path)


def test_webdataset_reads_the_source_bytes(paired_folder: PairedFolder, tmp_path: Path) -> None:
    source = paired_folder(5)
    shard_of(source, tmp_path / "a.tar")
    samples = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{n:03d}" for n in range(5)]
    for sample in samples:
        for side in ("rain", "clean"):
            expected = (source / side / f"{sample['__key__']}.png").read_bytes()
            assert sample[f"{side}.png"] == expected


def test_same_input_gives_the_same_bytes(paired_folder: PairedFolder, tmp_path: Path) -> None:
    source = paired_folder(3)
    entries = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        entries.append(shard_of(source, tmp_path / name / "x.tar"))
    assert entries[0] == entries[1]
    assert (tmp_path / "a/x.tar").read_bytes() == (tmp_path / "b/x.tar").read_bytes()
    assert entries[0].entries[0].bytes == (tmp_path / "a/x.tar").stat().st_size


@pytest.mark.parametrize("lengths", [[0], [1], [511, 512, 513], [9000, 0, 1238]])
def test_a_tar_equals_the_one_of_tarfile(lengths: list[int]) -> None:
    ours, theirs = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, length in enumerate(lengths):
            name, data = f"{'k' * 40 * number}{number}.rain.png", bytes([number]) * length
            ours.write(header(name, length) + data + bytes(-length % BLOCK))
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = length, 0, 0o644
            archive.addfile(info, io.BytesIO(data))
    assert packed_size(lengths) == ours.tell()
    ours.write(end(ours.tell()))
    assert ours.getvalue() == theirs.getvalue()


def test_rows_point_at_the_members(paired_folder: PairedFolder, tmp_path: Path) -> None:
    source = paired_folder(3)
    written = shard_of(source, tmp_path / "a.tar")
    with (tmp_path / "a.tar").open("rb") as tar:
        for row in written.rows.to_pylist():
            for side in ("rain", "clean"):
                data = read_member(tar, row[f"{side}_offset"], row[f"{side}_length"])
                assert data == (source / row[f"{side}_source"]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == row[f"{side}_sha256"]
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert {member.mtime for member in archive} == {0}


def test_reading_a_member_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"abc")
    with (tmp_path / "a.tar").open("rb") as tar, pytest.raises(DataError, match="ends at byte 3"):
        read_member(tar, 0, 10)


def test_unusable_pairs_are_left_out_with_a_reason(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(4)
    (source / "rain/000.png").write_bytes(b"not an image")
    whole = (source / "clean/001.png").read_bytes()
    (source / "clean/001.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (8, 8)).save(source / "clean/002.png")
    written = shard_of(source, tmp_path / "a.tar")
    assert written.rows["key"].to_pylist() == ["003"]
    reasons = {item.path: item.reason for item in written.quarantined}
    assert "not a readable image" in reasons["rain/000.png"]
    assert "clean/001.png" in reasons["rain/001.png"]
    assert "40 x 32, but clean/002.png: 8 x 8" in reasons["rain/002.png"]


def test_a_file_without_room_on_the_disk_is_named_and_leaves_nothing(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*/a\.tar") as raised:
            shard_of(source, tmp_path / "a.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(tmp_path / "a.tar")
    assert not list(tmp_path.glob("*a.tar*"))


def test_a_shard_without_a_usable_pair_is_not_written(
    paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(1)
    (source / "rain/000.png").write_bytes(b"")
    assert shard_of(source, tmp_path / "a.tar").entries == ()
    assert not list(tmp_path.glob("*a.tar*"))


def test_a_scene_is_one_sample_with_its_clean_image_once(tmp_path: Path) -> None:
    source = write_scenes(tmp_path / "source", scenes=3, rains=3, width=24, height=16)
    (source / "rainy_image/1_2.jpg").write_bytes(b"not an image")
    (source / "ground_truth/2.jpg").write_bytes(b"not an image")
    pairs = find_pairs("rain14000", source, clean_once=True).pairs
    written = write_shards(pairs, source, tmp_path / "a.tar")
    assert written.rows["key"].to_pylist() == ["1_1", "1_3", "3_1", "3_2", "3_3"]
    assert [item.path.split("/")[1] for item in written.quarantined] == [
        "1_2.jpg", "2_1.jpg", "2_2.jpg", "2_3.jpg",
    ]  # fmt: skip
    one, three = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    assert [one["__key__"], three["__key__"]] == ["1", "3"]
    assert one["rain-02.jpg"] == (source / "rainy_image/1_3.jpg").read_bytes()
    assert three["clean.jpg"] == (source / "ground_truth/3.jpg").read_bytes()
    about = json.loads(one["json"])
    assert [(pair["member"], pair["key"]) for pair in about["pairs"]] == [
        ("rain-01.jpg", "1_1"), ("rain-02.jpg", "1_3"),
    ]  # fmt: skip
    assert (about["key"], about["width"], about["clean_source"]) == ("1", 24, "ground_truth/1.jpg")
    assert not integrity.find_problems(tmp_path / "a.tar", written.entries[0], written.rows)


@pytest.mark.parametrize("once", [False, True])
def test_limits_hold_for_what_is_written(tmp_path: Path, once: bool) -> None:
    source = write_scenes(tmp_path / "source", scenes=6, rains=2, width=120, height=80)
    pairs = find_pairs("rain14000", source, clean_once=once).pairs
    for name in ("rainy_image/4_1.jpg", "ground_truth/4.jpg"):
        noise_image(99, width=300, height=200).save(source / name, quality=99)
    (source / "rainy_image/4_2.jpg").unlink()
    (source / "rainy_image/2_1.jpg").write_bytes(b"not an image")
    limits = ShardLimits(bytes=100_000, pairs=4)
    written = write_shards(pairs, source, tmp_path / "a.tar", limits=limits)
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == sorted(
        entry.name for entry in written.entries
    )
    assert [entry.name for entry in written.entries][:3] == ["a.tar", "a-01.tar", "a-02.tar"]
    large = [entry for entry in written.entries if entry.bytes > limits.bytes]
    assert [entry.pairs for entry in large] == [1]
    assert max(entry.pairs for entry in written.entries) == (4 if once else 3)
    keys = [pair.key for pair in pairs if pair.key not in ("2_1", "4_2")]
    assert written.rows["key"].to_pylist() == keys
    first = 0
    for entry in written.entries:
        rows = written.rows.slice(first, entry.pairs)
        first += entry.pairs
        assert not integrity.find_problems(tmp_path / entry.name, entry, rows)
    (tmp_path / "again").mkdir()
    again = write_shards(pairs, source, tmp_path / "again/a.tar", limits=limits)
    assert again == written


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (4, 4)), format="JPEG", exif=exif)


UNUSUAL = {
    "alpha": encoded(Image.new("RGBA", (4, 4))),
    "16 bit": encoded(Image.fromarray(np.zeros((4, 4), np.uint16))),
    "cmyk": encoded(Image.new("CMYK", (4, 4)), format="JPEG"),
    "animated": encoded(
        Image.new("RGB", (4, 4)), format="GIF", save_all=True,
        append_images=[Image.new("RGB", (4, 4), (9, 9, 9))],
    ),
    "rotated": rotated(),
    "bomb": encoded(Image.new("1", (30_000, 30_000))),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_images_are_refused_by_name(kind: str) -> None:
    with pytest.raises(DataError, match=r"odd\.png: "):
        decode_image(UNUSUAL[kind], "odd.png")


def test_grey_and_palette_images_become_rgb() -> None:
    grey = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    for image in (grey, grey.convert("P")):
        assert np.array_equal(decode_image(encoded(image), "x")[..., 1], np.asarray(grey))


def test_png_round_trip_is_lossless() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(encode_png(pixels), "x"), pixels)
