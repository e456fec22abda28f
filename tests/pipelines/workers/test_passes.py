"""Chunks on workers of Ray: results, refusals and bugs come back; the sizes suit the workers.

What becomes of a worker that dies is in the tests of evaluate and predict, whose networks die.
"""

import json
from typing import Any

import numpy as np
import pytest

from derain.errors import DataError, DerainError
from derain.pipelines.workers.passes import LARGEST_CHUNK, _result, _Worker, chunk_size, in_passes
from derain.pipelines.workers.plan import Workers


class Numbers:
    """Numbers that are left."""

    def __init__(self, count: int) -> None:
        self.left = set(range(count))

    def __len__(self) -> int:
        return len(self.left)

    def chunks(self, size: int) -> list[list[int]]:
        ordered = sorted(self.left)
        return [ordered[at : at + size] for at in range(0, len(ordered), size)]


class Doubling:
    """Doubles the numbers of a chunk; refuses 13, and fails at 14."""

    def __init__(self, times: int) -> None:
        self._times = times

    def __call__(self, chunk: list[int]) -> list[list[int]]:
        if 13 in chunk:
            raise DataError("13 is refused.")
        if 14 in chunk:
            raise KeyError("a bug")
        return [[number, self._times * number] for number in chunk]


@pytest.mark.usefixtures("ray_cluster")
def test_every_item_is_done_once() -> None:
    left, found = Numbers(9), []
    for result in in_passes(Doubling, {"times": 2}, left, Workers(2, 1.0, 0.0), "test: numbers"):
        left.left -= {number for number, _ in result}
        found += result
    assert sorted(found) == [[number, 2 * number] for number in range(9)]


def test_nothing_is_done_for_nothing() -> None:
    assert list(in_passes(Doubling, {"times": 2}, Numbers(0), Workers(2, 1.0, 0.0), "test")) == []


def test_a_refusal_is_its_message_and_a_bug_has_its_traceback() -> None:
    worker = _Worker(Doubling, {"times": 3})

    def result(chunk: str) -> Any:
        (done,) = worker({"chunk": np.array([chunk], dtype=object)})["done"]
        return _result(json.loads(done))

    assert result("[1, 2]") == [[1, 3], [2, 6]]
    with pytest.raises(DerainError, match=r"^13 is refused\.$"):
        result("[13]")
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*a bug"):
        result("[14]")


def test_workers_end_at_about_the_same_time() -> None:
    for items, workers in ((1, 1), (9, 2), (5000, 2), (5000, 64)):
        assert 1 <= chunk_size(items, workers) <= max(1, items // (8 * workers))
    assert chunk_size(10**6, 2) == LARGEST_CHUNK
