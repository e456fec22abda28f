"""One scorer serves several chunks at once, as it does in a worker with a GPU."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from derain.data.prepared.manifest import Prepared, open_prepared
from derain.pipelines.evaluate.methods import ModelMethod
from derain.pipelines.evaluate.work import scorer as module
from derain.pipelines.evaluate.work.images import Images
from derain.pipelines.evaluate.work.records import Record
from derain.pipelines.evaluate.work.scorer import Chunk, Scorer, Task


def test_chunks_at_once_give_what_they_give_in_turn_and_open_a_dataset_once(
    model: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def slowly(prepared: Prepared, protocols: Sequence[str]) -> Images:
        opened.append(prepared)
        time.sleep(0.1)
        return Images(prepared, protocols)

    monkeypatch.setattr(module, "Images", slowly)
    task = Task((ModelMethod(model, "cpu"),), {"nine": open_prepared(dataset)}, ("rain13k",))
    chunks = [Chunk(0, "nine", numbers) for numbers in ((0, 1, 2, 3), (4, 5, 6, 7, 8))]

    with Scorer(task) as scorer, ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda chunk: timeless(scorer, chunk), chunks))
    assert len(opened) == 1
    with Scorer(task) as scorer:
        assert found == [timeless(scorer, chunk) for chunk in chunks]


def timeless(scorer: Scorer, chunk: Chunk) -> list[Record]:
    return [replace(record, seconds=None) for record in scorer.records(chunk)]
