"""Requests to an object store: many at a time, results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from derain.storage.remote import RemotePath

AT_ONCE = 32
"""Requests at a time: a request takes tens of milliseconds, most of them waiting."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], place: Path, at_once: int = AT_ONCE
) -> Iterator[Result]:
    """`map(work, items)`, with `at_once` calls at a time if `place` is in an object store.

    At most twice as many results wait to be taken. After an error no further call is begun, and it
    is raised when those under way have ended. For local files it is `map`: a disk gains nothing.
    """
    if not isinstance(place, RemotePath):
        yield from map(work, items)
        return
    threads = ThreadPoolExecutor(at_once)
    try:
        waiting: deque = deque()
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) == 2 * at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
