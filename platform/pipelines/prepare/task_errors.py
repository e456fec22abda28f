"""Errors of Ray tasks and of the disk -> one message that says what happened and what to do."""

import contextlib
from collections.abc import Iterator

from derain.storage.refusals import expected

RUN_AGAIN = "run the same `derainctl prepare` again: finished shards are kept."


@contextlib.contextmanager
def explaining_errors() -> Iterator[None]:
    """Raise an expected error of a Ray task as itself, and what the machine refuses as a
    StorageError with advice; any other error is raised unchanged."""
    try:
        yield
    except Exception as error:
        explained = expected(error, then=RUN_AGAIN)
        if explained is None or explained is error:
            raise
        raise explained from error
