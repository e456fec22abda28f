"""Crops by position: the same whoever asks in which order, in little memory."""

import copy
import tracemalloc

import numpy as np
import pytest

from derain.data.loading import crops
from derain.data.loading.augment import draw_crops
from derain.data.loading.crops import BLOCK, Crops, Epochs
from derain.data.loading.order import Recipe, epoch_order

SIZES = (5000, 4000)
RECIPE = Recipe(SIZES, 3, (1.0, 3.0))


def expected(epoch: int) -> Crops:
    """All crops of an epoch, drawn at once."""
    drawn = epoch_order(RECIPE, epoch)
    found = draw_crops(3, drawn.times.astype(int), drawn.ids.astype(int), "dihedral")
    second = drawn.ids >= SIZES[0]
    sample = drawn.ids - SIZES[0] * second
    return Crops(second.astype(int), sample, found.top, found.left, found.symmetry, found.number)


def same(found: Crops, other: Crops) -> bool:
    return all(map(np.array_equal, found.columns, other.columns))


@pytest.mark.parametrize("begin", [0, BLOCK - 3, BLOCK, 2 * BLOCK - 1, sum(SIZES) - 5])
def test_any_stretch_is_that_of_the_whole_epoch(begin: int) -> None:
    stretch = slice(begin, begin + 5)
    assert same(Epochs(RECIPE, "dihedral").crops(1, stretch), expected(1)[stretch])
    ids = Epochs(RECIPE, "dihedral").ids(1, stretch)
    assert ids.dtype == np.int64
    assert np.array_equal(ids, epoch_order(RECIPE, 1).ids[stretch])


def test_epochs_may_be_asked_for_in_any_order() -> None:
    epochs = copy.deepcopy(Epochs(RECIPE, "dihedral"))
    for number in (3, 4, 3, 4, 5, 0, 9, 8):
        assert same(epochs.crops(number, slice(10, 20)), expected(number)[10:20])


def test_the_next_epoch_is_drawn_while_one_is_used_and_none_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []

    def noted(recipe: Recipe, number: int) -> object:
        drawn.append(number)
        return epoch_order(recipe, number)

    monkeypatch.setattr(crops, "epoch_order", noted)
    epochs = Epochs(RECIPE, "none")
    for number in (0, 0, 1, 0, 1, 2, 1, 2):  # batches are prepared across the end of an epoch
        epochs.ids(number, slice(0, 4))
    epochs._thread.shutdown()
    assert drawn == [0, 1, 2, 3]


def test_an_epoch_in_use_takes_few_bytes_a_sample() -> None:
    """Crops of a whole epoch were 56 bytes a sample beside its order."""
    count = 200_000
    epochs = Epochs(Recipe((count,), 1), "dihedral")
    tracemalloc.start()
    for begin in range(0, count, 50_000):
        epochs.crops(0, slice(begin, begin + 16))
    epochs._thread.shutdown()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * 8 * count + 2_000_000  # this epoch and the next; four blocks of crops
