"""Crops and symmetries: the same for both images, uniform, a pure function of the sample."""

import hashlib

import numpy as np
import pytest

from benchmarks._small import NoisePairs
from derain.config.training import Stage
from derain.data.loading import augment
from derain.data.loading.loader import Loader, Position
from derain.data.loading.order import Recipe
from tests.tiny import Pixels


def test_draws_depend_on_the_sample_only() -> None:
    together = augment.draw_crops(3, 1, np.array([5, 9, 2]))
    alone = augment.draw_crops(3, 1, np.array([9]))
    assert (together.top[1], together.left[1]) == (alone.top[0], alone.left[0])
    assert together.symmetry[1] == alone.symmetry[0]


def test_draws_reach_every_position_and_symmetry() -> None:
    draws = augment.draw_crops(0, 0, np.arange(4000))
    image = np.arange(9 * 9 * 3, dtype=np.uint8).reshape(1, 9, 9, 3).repeat(2, axis=0)
    corners = {
        augment.crop(image, top, left, 5)[0, 0, 0, 0]
        for top, left in zip(draws.top, draws.left, strict=True)
    }
    expected = {image[0, y, x, 0] for y in range(5) for x in range(5)}
    assert corners == expected
    assert np.bincount(draws.symmetry, minlength=8).min() > 400


def test_the_eight_symmetries_differ_and_keep_both_images_together() -> None:
    pair = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    pair[1] = 255 - pair[0]
    turned = [augment.transform(pair, symmetry) for symmetry in range(8)]
    assert len({view.tobytes() for view in turned}) == 8
    for view in turned:
        assert np.array_equal(view[1], 255 - view[0])


@pytest.mark.parametrize("side", [1, 2, 3, 16, 33, 128])
@pytest.mark.parametrize("symmetry", range(8))
def test_what_is_written_is_the_symmetry_and_nothing_beside_it(side: int, symmetry: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, side + 5, side + 7, 3), np.uint8)
    images.flags.writeable = False
    square = images[:, 2 : 2 + side, 3 : 3 + side]
    batch = np.full((2, 3, side, side, 3), 77, np.uint8)
    augment.write_transformed(batch[:, 1], square, symmetry)
    assert np.array_equal(batch[:, 1], augment.transform(square, symmetry))
    assert (batch[:, [0, 2]] == 77).all()


def test_a_batch_has_the_bytes_that_it_always_had() -> None:
    noise = NoisePairs(24, 48)
    stages = [Stage(from_step=0, crop_px=32, batch_size=24)]
    batch = Loader([noise], Recipe((24,), seed=5), stages).batch(Position(2))
    digest = hashlib.sha256(batch.rain.tobytes() + batch.clean.tobytes()).hexdigest()
    assert digest == "27799221fdbab595501541ce989361cea7ec03c831a3e530c7f9e6c4e51895be"


def test_flip_keeps_rain_falling_down() -> None:
    pair = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None], (2, 6, 6, 3)).copy()
    pair[:, :, 0] += 100
    drawn = augment.draw_crops(0, 0, np.arange(64), "flip").symmetry
    views = {augment.transform(pair, int(symmetry)).tobytes() for symmetry in drawn}
    assert views == {pair.tobytes(), pair[:, :, ::-1].tobytes()}


def test_a_small_image_is_reflected() -> None:
    pair = np.random.default_rng(0).integers(0, 256, (2, 10, 20, 3), dtype=np.uint8)
    square = augment.crop(pair, 0.0, 0.0, 16)
    assert square.shape == (2, 16, 16, 3)
    assert np.array_equal(square[:, 10], pair[:, 8, :16])


def test_a_crop_of_a_large_image_is_a_view() -> None:
    pair = np.zeros((2, 64, 64, 3), np.uint8)
    assert np.shares_memory(augment.transform(augment.crop(pair, 0.5, 0.5, 16), 6), pair)


def test_an_augmentation_of_ones_own_is_done_to_each_crop_with_a_number_of_its_own() -> None:
    numbers: list[int] = []

    def halved(square: np.ndarray, number: int) -> np.ndarray:
        numbers.append(number)
        square //= 2  # of a copy
        return square

    stages, recipe = [Stage(from_step=0, crop_px=16, batch_size=11)], Recipe(sizes=(11,), seed=3)
    own = Loader([Pixels()], recipe, stages, augment="none", own=halved)
    plain = Loader([Pixels()], recipe, stages, augment="none")
    for epoch in (0, 1):
        found, expected = (each.batch(Position(epoch)) for each in (own, plain))
        assert np.array_equal(found.rain, expected.rain // 2)
        assert np.array_equal(found.clean, expected.clean // 2)
    assert len(set(numbers)) == 22
    again = numbers.copy()
    numbers.clear()
    part = Loader([Pixels()], recipe, stages, augment="none", own=halved, rank=1, world=2)
    part.batch(Position(1))
    assert numbers == again[11 + 5 :]
