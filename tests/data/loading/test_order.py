"""Order is a pure function: every sample once per epoch, the same for any number of ranks."""

import hashlib
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derain.config.training import Stage
from derain.data.loading import order
from derain.data.loading.order import Recipe

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=4)
seeds = st.integers(0, 2**32)


def ids_of(sizes: Sequence[int], seed: int, epoch: int, **options: Any) -> np.ndarray:
    return order.epoch_order(Recipe(tuple(sizes), seed, **options), epoch).ids


@given(sizes, seeds, st.integers(0, 50))
def test_without_mix_an_epoch_has_every_sample_once(
    sizes: list[int], seed: int, epoch: int
) -> None:
    ids = ids_of(sizes, seed, epoch)
    assert sorted(ids.tolist()) == list(range(sum(sizes)))


@given(sizes, seeds, st.data())
def test_with_mix_samples_of_a_dataset_are_seen_equally_often(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    mix = data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes)))
    drawn = np.concatenate([ids_of(sizes, seed, epoch, mix=tuple(mix)) for epoch in range(5)])
    first = 0
    for size in sizes:
        counts = np.bincount(drawn, minlength=sum(sizes))[first : first + size]
        assert counts.max() - counts.min() <= 1
        first += size


def test_mix_shares_are_kept_in_every_epoch() -> None:
    ids = ids_of((30, 10), 5, 2, mix=(1, 3))
    assert np.count_nonzero(ids < 30) == 10
    assert len(ids) == 40


@given(sizes, seeds, st.data())
def test_times_counts_the_earlier_uses_of_a_sample(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    mix = tuple(data.draw(st.lists(st.floats(0.05, 1), min_size=len(sizes), max_size=len(sizes))))
    seen: dict[int, list[int]] = {}
    for number in range(4):
        drawn = order.epoch_order(Recipe(tuple(sizes), seed, mix), number)
        for sample, times in zip(drawn.ids.tolist(), drawn.times.tolist(), strict=True):
            seen.setdefault(sample, []).append(times)
    assert all(sorted(times) == list(range(len(times))) for times in seen.values())


@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(1, 50), seeds)
def test_every_stretch_of_an_epoch_has_its_share_of_each_stratum(
    counts: list[int], length: int, seed: int
) -> None:
    strata = np.repeat(np.arange(len(counts)), counts)
    ordered = strata[ids_of([len(strata)], seed, 3, strata=strata)]
    length = min(length, len(ordered))
    for stratum, count in enumerate(counts):
        share = count / len(ordered)
        found = np.convolve(ordered == stratum, np.ones(length), mode="valid")
        off = np.abs(found - length * share).max()
        assert off <= 1 + share * (len(counts) - 2) + 1e-9


@given(sizes, seeds, st.integers(0, 9))
def test_strata_change_the_order_and_not_the_samples(
    sizes: list[int], seed: int, epoch: int
) -> None:
    strata = np.arange(sum(sizes)) % 3
    ids = ids_of(sizes, seed, epoch, strata=strata)
    assert sorted(ids.tolist()) == list(range(sum(sizes)))


def test_the_last_stage_that_has_begun_is_used() -> None:
    stages = [Stage(from_step=step, crop_px=16, batch_size=1) for step in (0, 5, 6)]
    found = [order.stage_at(stages, step).from_step for step in (0, 4, 5, 6, 99)]
    assert found == [0, 0, 5, 6, 6]


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(ids_of([64], seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


@given(st.integers(0, 50), st.integers(1, 9))
def test_ranks_share_a_batch_without_gap_or_overlap(count: int, world: int) -> None:
    parts = [np.arange(count)[order.rank_slice(count, rank, world)] for rank in range(world)]
    assert np.concatenate(parts).tolist() == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_another_process_has_the_same_order() -> None:
    code = (
        "from derain.data.loading.order import Recipe, epoch_order\n"
        "print(epoch_order(Recipe((50,), 7), 3).ids.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ids_of([50], 7, 3).tolist())


def test_shuffle_is_uniform_enough() -> None:
    places = np.array([np.flatnonzero(ids_of([10], seed, 0) == 0)[0] for seed in range(4000)])
    counts = np.bincount(places, minlength=10)
    chi_square = float((((counts - 400) ** 2) / 400).sum())
    assert chi_square < 27.9  # 99.9 % quantile with 9 degrees of freedom


@pytest.mark.parametrize("bit", [0, 1, 31, 63])
def test_mix64_flips_half_of_the_bits(bit: int) -> None:
    values = np.arange(5000, dtype=np.uint64)
    flipped = order.mix64(values) ^ order.mix64(values ^ np.uint64(1 << bit))
    share = np.unpackbits(flipped.view(np.uint8)).mean()
    assert share == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("options", "digest"),
    [
        ({}, "a5b8a271e4b2a0a9"),
        ({"mix": (3.0, 1.0)}, "f152a8d6d4371205"),
        ({"mix": (1.0, 2.0), "shuffle": False}, "ae06189c45b56e45"),
        ({"strata": np.arange(900) % 7}, "619d31990fdaed1c"),
    ],
    ids=str,
)
def test_the_order_is_the_one_that_runs_were_started_with(
    options: dict[str, Any], digest: str
) -> None:
    """Otherwise they could not be resumed."""
    drawn = order.epoch_order(Recipe((300, 600), 11, **options), 3)
    content = b"".join(np.asarray(part, "<i8").tobytes() for part in (drawn.ids, drawn.times))
    assert hashlib.sha256(content).hexdigest()[:16] == digest


def test_equal_hashes_keep_the_order_of_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "mix64", lambda *parts: np.asarray(parts[-1] % 3, np.uint64))
    drawn = order.epoch_order(Recipe((7,), 1), 0)
    once = np.array([0, 3, 6, 1, 4, 2, 5])
    assert drawn.ids.tolist() == once[once].tolist()


@pytest.mark.parametrize("count", [50_000, 200_000])
@pytest.mark.parametrize("mix", [None, (1.0, 2.0)])
def test_an_epoch_takes_few_bytes_a_sample(count: int, mix: tuple[float, ...] | None) -> None:
    """They were 64 for the order alone, and 254 with all crops: 2.5 GB for ten million samples."""
    recipe = Recipe((count // 2, count // 2), 1, mix)
    order.epoch_order(recipe, 0)
    tracemalloc.start()
    drawn = order.epoch_order(recipe, 1)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(drawn.ids) == count
    assert kept < 9 * count + 100_000
    assert most < 32 * count + 4_000_000  # hashing a block takes 3 MB
