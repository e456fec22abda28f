"""Compressed tiles: what comes out is what went in, wherever the window is."""

import numpy as np
import pytest

from derain.data.loading.compressed.tiles import (
    COLUMNS,
    ROWS,
    TILE_BYTES,
    decode,
    encode,
    grid,
    tile_counts,
)


def pair_of(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (ROWS, COLUMNS), (ROWS + 1, COLUMNS - 1), (75, 200)]
)
def test_every_window_has_the_bytes_of_the_images(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    pair = pair_of(height, width, 0)
    rain, clean = encode(pair[0], pair[1]), encode(pair[1])
    down, across = grid(height, width)
    assert len(rain) == len(clean) == down * across
    assert tile_counts(np.array([height]), np.array([width])).tolist() == [down * across]
    for _ in range(20):
        top, left = rng.integers(height), rng.integers(width)
        high, wide = rng.integers(1, height - top + 1), rng.integers(1, width - left + 1)
        rows = range(top // ROWS, (top + high - 1) // ROWS + 1)
        columns = range(left // COLUMNS, (left + wide - 1) // COLUMNS + 1)
        touched = [tiles[y * across + x] for tiles in (rain, clean) for y in rows for x in columns]
        window = int(top % ROWS), int(left % COLUMNS), int(high), int(wide)
        found = decode(touched, (len(rows), len(columns)), window)
        np.testing.assert_array_equal(found, pair[:, top : top + high, left : left + wide])


def test_all_differences_of_levels_survive() -> None:
    """Every step wraps around at 256."""
    every = np.arange(256, dtype=np.uint8)
    clean = np.zeros((256, 256, 3), np.uint8)
    clean[..., 0], clean[..., 1] = every, every[:, None]
    clean[::2, :, 2] = 255
    pair = np.stack([255 - clean, clean])
    shape = grid(256, 256)
    found = decode(encode(*pair) + encode(pair[1]), shape, (0, 0, 256, 256))
    np.testing.assert_array_equal(found, pair)


def test_what_is_alike_takes_next_to_nothing() -> None:
    """Also beyond the edges of the image: those tiles are not longer than inner ones."""
    clean = np.full((ROWS + 1, COLUMNS + 1, 3), 200, np.uint8)
    assert max(map(len, encode(clean))) < TILE_BYTES // 50
    assert max(map(len, encode(clean, clean))) < TILE_BYTES // 50


@pytest.mark.parametrize("tile", [b"", b"\xff" * 30, encode(pair_of(ROWS, COLUMNS, 1)[0])[0][:-9]])
def test_what_is_no_tile_is_refused(tile: bytes) -> None:
    whole = encode(pair_of(ROWS, COLUMNS, 1)[1])
    with pytest.raises(ValueError, match="Lz4"):
        decode([tile, *whole], (1, 1), (0, 0, 1, 1))
