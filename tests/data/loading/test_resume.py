"""Resume at every step of an epoch of 117 samples: the same global order, the same pixels.

117 is the epoch of MosaicML Streaming's own resumption test, which interrupts it once, halfway.
"""

from typing import Any

import numpy as np
import pytest

from benchmarks._small import write_dataset
from derain.config.training import Stage
from derain.data.loading.cache import Pixels, open_pixels
from derain.data.loading.loader import Batch, Loader, Position
from derain.data.loading.order import Recipe
from derain.data.loading.prefetch import prefetch
from tests.data.loading.batches import take
from tests.folders import write_pairs

EPOCH = 117
WORLDS = (1, 2, 1, 3, 5, 7)


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Pixels:
    folder = tmp_path_factory.mktemp("resume")
    source = write_pairs(folder / "source", EPOCH, width=24, height=20)
    dataset = write_dataset(source, folder / "prepared")
    return open_pixels(dataset, folder=folder / "cache", budget_gib=1)


def loader(pixels: Pixels, batch_size: int, shuffle: bool, **share: Any) -> Loader:
    stages = [Stage(from_step=0, crop_px=16, batch_size=batch_size)]
    return Loader([pixels], Recipe((EPOCH,), seed=5, shuffle=shuffle), stages, **share)


@pytest.fixture(params=[(1, True), (1, False), (4, True), (4, False)], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[int, bool]:
    return request.param


@pytest.fixture
def unbroken(pixels: Pixels, case: tuple[int, bool]) -> list[Batch]:
    """An epoch and five steps of the next one."""
    return take(loader(pixels, *case).batch, Position(), -(-EPOCH // case[0]) + 5)


def positions(unbroken: list[Batch]) -> list[Position]:
    return [Position(), *(batch.following for batch in unbroken[:-1])]


def test_the_unbroken_epoch_has_every_sample_once(unbroken: list[Batch]) -> None:
    ids = np.concatenate([batch.ids for batch in unbroken])
    assert sorted(ids[:EPOCH].tolist()) == list(range(EPOCH))


@pytest.mark.parametrize("processes", [0, 2])
def test_a_run_resumed_at_any_step_gets_the_same_batches(
    pixels: Pixels, case: tuple[int, bool], unbroken: list[Batch], processes: int
) -> None:
    with prefetch(loader(pixels, *case), processes) as batch_at:
        for step, at in reversed(list(enumerate(positions(unbroken)))):
            for expected in unbroken[step : step + 2]:
                found = batch_at(at)
                assert np.array_equal(found.ids, expected.ids)
                assert np.array_equal(found.rain, expected.rain)
                assert np.array_equal(found.clean, expected.clean)
                at = found.following


def test_the_number_of_ranks_may_change_at_every_step(
    pixels: Pixels, case: tuple[int, bool], unbroken: list[Batch]
) -> None:
    for step, at in enumerate(positions(unbroken)):
        for world in {WORLDS[step % len(WORLDS)], WORLDS[(step + 1) % len(WORLDS)]}:
            ranks = [loader(pixels, *case, rank=rank, world=world) for rank in range(world)]
            parts = [rank.batch(at) for rank in ranks]
            expected = unbroken[step]
            assert np.array_equal(np.concatenate([part.ids for part in parts]), expected.ids)
            rain = np.concatenate([part.rain for part in parts if len(part.ids)])
            assert np.array_equal(rain, expected.rain)
            assert {part.following for part in parts} == {expected.following}
