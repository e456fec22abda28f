"""Loader processes: the same bytes as without them, no leftovers, no hang."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks._small import write_dataset
from derain.data.loading.loader import Batch, Position
from derain.data.loading.prefetch import prefetch
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError, DerainError
from tests.data.loading.batches import loader, take
from tests.folders import PairedFolder
from tests.processes import children, parent_of, wait_for


@pytest.fixture
def dataset(paired_folder: PairedFolder, tmp_path: Path) -> Prepared:
    return write_dataset(paired_folder(13), tmp_path / "prepared")


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.rain, b.rain)
        and np.array_equal(a.clean, b.clean)
        and np.array_equal(a.ids, b.ids)
        and (a.share, a.following) == (b.share, b.following)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("processes", "rank", "world"), [(1, 0, 1), (4, 0, 1), (2, 0, 3)])
def test_processes_give_the_same_bytes(
    dataset: Prepared, processes: int, rank: int, world: int
) -> None:
    whole = loader(dataset, rank=rank, world=world)
    expected = take(whole.batch, Position(), 17)  # two epochs of 7 steps and some
    with prefetch(whole, processes) as batch_at:
        assert same(take(batch_at, Position(), 17), expected)


def test_positions_may_go_back_and_skip(dataset: Prepared) -> None:
    whole = loader(dataset)
    positions = [Position(), Position(0, 4, 1), Position(), Position(2, 8, 16), Position(2, 12, 17)]
    with prefetch(whole, 2) as batch_at:
        assert same([batch_at(at) for at in positions], [whole.batch(at) for at in positions])


def test_processes_end_with_the_block(dataset: Prepared) -> None:
    before = children(os.getpid())
    with prefetch(loader(dataset), 2) as batch_at:
        batch_at(Position())
        assert len(children(os.getpid()) - before) == 2
    assert children(os.getpid()) == before


def test_a_killed_process_is_an_error_and_not_a_hang(dataset: Prepared) -> None:
    before = children(os.getpid())
    with prefetch(loader(dataset), 2) as batch_at:
        at = batch_at(Position()).following
        for child in children(os.getpid()) - before:
            os.kill(child, signal.SIGKILL)
        with pytest.raises(DerainError, match="was killed by signal 9"):
            take(batch_at, at, 9)


def test_a_damaged_shard_is_an_error_in_the_parent(dataset: Prepared) -> None:
    shard = dataset.folder / dataset.manifest.shards[0].name
    whole = loader(dataset)
    shard.write_bytes(shard.read_bytes()[:2000])
    with prefetch(whole, 1) as batch_at, pytest.raises(DataError, match=shard.name):
        take(batch_at, Position(), 4)


def test_a_killed_trainer_leaves_nothing(dataset: Prepared) -> None:
    shared = set(Path("/dev/shm").iterdir())
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(dataset.folder)], stdout=subprocess.PIPE, text=True
    )
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "training\n"
    loaders = children(trainer.pid)
    assert len(loaders) == 2
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    wait_for(lambda: not any(map(parent_of, loaders)), seconds=60)
    assert set(Path("/dev/shm").iterdir()) <= shared


TRAINER = """
import sys, time
from derain.config.training import Stage
from derain.data.loading.cache import TarPixels
from derain.data.loading.prefetch import prefetch
from derain.data.loading.loader import Loader, Position
from derain.data.prepared.manifest import open_prepared
from derain.data.loading.order import Recipe
dataset = open_prepared(sys.argv[1])
stages = [Stage(from_step=0, crop_px=16, batch_size=4)]
loader = Loader([TarPixels(dataset)], Recipe((len(dataset),), seed=0), stages)
with prefetch(loader, 2) as batch_at:
    batch_at(Position())
    print("training", flush=True)
    time.sleep(600)
"""
