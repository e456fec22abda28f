"""The file of a compressed cache: whole or not, and each tile with its checksum."""

from pathlib import Path

import numpy as np
import pytest

from derain.data.loading.compressed.tile_file import (
    TileWriter,
    begin_of_tiles,
    is_whole,
    table_of,
    tiles_at,
)
from derain.data.loading.compressed.tiles import encode

PAIR = np.random.default_rng(0).integers(0, 256, (2, 40, 70, 3), dtype=np.uint8)
TILES = 12
"""Of a pair, four for each image, and of an image that was not written."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The clean image is written, as if an earlier pair had it, and the rainy one of the next."""
    with (tmp_path / "file").open("w+b") as out:
        writer = TileWriter(out, TILES, expected=10**6)
        writer.write((0, 4), PAIR[0], PAIR[1])
        writer.write((8, 4), None, PAIR[1])
        writer.finish()
    return tmp_path / "file"


def test_tiles_are_found_by_their_numbers(path: Path) -> None:
    data = memoryview(path.read_bytes())
    table = table_of(data, TILES)
    assert [*map(bytes, tiles_at(data, table[4:8]))] == encode(PAIR[1])
    assert [*map(bytes, tiles_at(data, table[:4]))] == encode(PAIR[0], PAIR[1])
    with pytest.raises(ValueError, match="another CRC-32"):
        next(tiles_at(data, table[8:]))


def test_nothing_is_there_twice_and_no_reserved_space_is_left(path: Path) -> None:
    tiles = encode(PAIR[0], PAIR[1]) + encode(PAIR[1])
    assert path.stat().st_size == begin_of_tiles(TILES) + sum(map(len, tiles))


def test_a_file_that_is_cut_or_is_another_one_is_not_whole(path: Path, tmp_path: Path) -> None:
    assert is_whole(path, TILES)
    assert not is_whole(tmp_path / "none", TILES)
    whole = path.read_bytes()
    for other in (whole[:-1], whole + b"x", b"\0" * 16 + whole[16:], whole[:10], b""):
        path.write_bytes(other)
        assert not is_whole(path, TILES)


def test_a_changed_byte_is_noticed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    table = table_of(memoryview(bytes(data)), TILES)
    data[int(table[2, 0]) + 40] ^= 1
    for number in range(8):
        tiles = tiles_at(memoryview(data), table[number : number + 1])
        if number == 2:
            with pytest.raises(ValueError, match="another CRC-32"):
                next(tiles)
        else:
            next(tiles)
