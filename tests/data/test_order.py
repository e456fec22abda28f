"""Order is a pure function: every sample once an epoch, the same for any number of ranks."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain.data import order

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)
seeds = st.integers(0, 2**32)


@given(sizes, seeds, st.integers(0, 50))
def test_without_mix_an_epoch_has_every_sample_once(
    sizes: list[int], seed: int, epoch: int
) -> None:
    ids = order.epoch_ids(sizes, None, seed, epoch)
    assert sorted(ids.tolist()) == list(range(sum(sizes)))


@given(sizes, seeds, st.data())
def test_with_mix_samples_of_a_dataset_are_seen_equally_often(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    mix = data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
    drawn = np.concatenate([order.epoch_ids(sizes, mix, seed, epoch) for epoch in range(5)])
    first = 0
    for size in sizes:
        counts = np.bincount(drawn, minlength=sum(sizes))[first : first + size]
        assert counts.max() - counts.min() <= 1
        first += size


def test_mix_shares_are_kept_in_every_epoch() -> None:
    ids = order.epoch_ids((30, 10), (1, 3), seed=5, epoch=2)
    assert np.count_nonzero(ids < 30) == 10
    assert len(ids) == 40


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(order.epoch_ids([64], None, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4


@given(st.integers(0, 50), st.integers(1, 9))
def test_ranks_share_a_batch_without_gap_or_overlap(count: int, world: int) -> None:
    parts = [np.arange(count)[order.rank_slice(count, rank, world)] for rank in range(world)]
    assert np.concatenate(parts).tolist() == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_another_process_has_the_same_order() -> None:
    code = "from derain.data import order; print(order.epoch_ids([50], None, 7, 3).tolist())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(order.epoch_ids([50], None, 7, 3).tolist())


def test_shuffle_is_uniform_enough() -> None:
    places = np.array(
        [np.flatnonzero(order.epoch_ids([10], None, seed, 0) == 0)[0] for seed in range(4000)]
    )
    counts = np.bincount(places, minlength=10)
    chi_square = float((((counts - 400) ** 2) / 400).sum())
    assert chi_square < 27.9  # 99.9 % quantile with 9 degrees of freedom


@pytest.mark.parametrize("bit", [0, 1, 31, 63])
def test_mix64_flips_half_of_the_bits(bit: int) -> None:
    values = np.arange(5000, dtype=np.uint64)
    flipped = order.mix64(values) ^ order.mix64(values ^ np.uint64(1 << bit))
    share = np.unpackbits(flipped.view(np.uint8)).mean()
    assert share == pytest.approx(0.5, abs=0.01)
