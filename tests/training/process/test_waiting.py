"""Ranks that are done wait for one that is not, longer than a collective operation may take."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from derain.training.process.distributed import Rank
from tests.tiny import ranks

CPU = torch.device("cpu")
TIMEOUT_S = 2.0


def test_a_cold_node_is_waited_for(tmp_path: Path) -> None:
    ranks(_wait, 2, tmp_path)
    waited = [float((tmp_path / str(number)).read_text()) for number in range(2)]
    assert min(waited) > 1.5 * TIMEOUT_S


def _wait(number: int, world: int, folder: Path) -> None:
    _join(number, world, folder)
    rank, began = Rank(number, world), time.monotonic()
    found = rank.wait_for_all(lambda: _fill_cache(number), CPU, every_s=0.2)
    assert found == number
    (folder / str(number)).write_text(str(time.monotonic() - began))
    rank.barrier()
    with pytest.raises(RuntimeError, match=r"(?i)timed? ?out|closed|reset"):
        _barrier_with_a_late_rank(rank)


def _barrier_with_a_late_rank(rank: Rank) -> None:
    """What happened before: the test would pass without waiting if this did not fail."""
    _fill_cache(rank.number)
    rank.barrier()


def _fill_cache(number: int) -> int:
    if number == 1:
        time.sleep(2 * TIMEOUT_S)
    return number


def test_an_error_of_the_work_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        Rank().wait_for_all(lambda: 1 // 0, CPU)


def test_an_error_on_one_rank_is_raised_there(tmp_path: Path) -> None:
    ranks(_fail, 2, tmp_path)


def _fail(number: int, world: int, folder: Path) -> None:
    _join(number, world, folder)
    expected = ZeroDivisionError if number == 1 else RuntimeError
    with pytest.raises(expected):
        Rank(number, world).wait_for_all(lambda: 1 // (1 - number), CPU, every_s=0.1)


def _join(number: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=number,
        world_size=world,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
