"""Requests to a store run side by side and give their results in order."""

import threading
import time
from pathlib import Path

import pytest

from derain.storage.files import locate
from derain.storage.in_parallel import AT_ONCE, in_parallel

STORE = locate("s3://bucket/folder")


def test_results_are_in_order_however_long_each_takes() -> None:
    def slow(number: int) -> int:
        time.sleep(0.02 * (number % 3))
        return number

    assert list(in_parallel(slow, range(100), STORE)) == list(range(100))


def test_several_run_but_few_and_few_wait() -> None:
    running, most, started = 0, 0, 0
    lock = threading.Lock()

    def work(number: int) -> int:
        nonlocal running, most, started
        with lock:
            started += 1
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1
        return number

    for taken, _ in enumerate(in_parallel(work, range(500), STORE), 1):
        assert started <= taken + 2 * AT_ONCE
    assert 1 < most <= AT_ONCE


def test_an_error_is_raised_in_its_place() -> None:
    results = in_parallel(lambda number: 1 // (5 - number), range(9), STORE)
    with pytest.raises(ZeroDivisionError):
        list(results)


def test_after_an_error_no_further_call_begins() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.05)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(in_parallel(work, range(100), STORE, 2))
    assert len(begun) <= 4


def test_local_files_are_read_one_by_one(tmp_path: Path) -> None:
    threads = set(in_parallel(lambda _: threading.get_ident(), range(9), tmp_path))
    assert threads == {threading.get_ident()}
