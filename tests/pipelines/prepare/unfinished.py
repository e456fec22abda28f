"""Leave an unfinished dataset: all shards are written, but neither index nor manifest."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from derain.data.prepared.index import INDEX
from derain.errors import StorageError
from derain.pipelines.prepare.finished_shards import PARTS


@contextlib.contextmanager
def index_cannot_be_written(out: Path) -> Iterator[None]:
    """Expect `prepare` in the block to fail: a folder has the name of the index."""
    (out / PARTS).mkdir(parents=True)
    (out / INDEX).mkdir()
    with pytest.raises(StorageError, match=INDEX):
        yield
    (out / INDEX).rmdir()
