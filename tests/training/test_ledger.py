"""The ledger: a file for each rank, joined when it is read; torn lines cost only themselves."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from derain.training.ledger import LEDGER, Ledger, read_ledger
from derain.training.process.distributed import Rank


class Alone(Rank):
    """A rank whose barriers do not wait, because the others are in this process too."""

    def barrier(self) -> None:
        return


def write(run: Path, world: int, steps: range) -> None:
    ledgers = [Ledger(run, Alone(number, world)) for number in range(world)]
    for ledger in ledgers:
        ledger.rewind(steps.start)
    for number, ledger in enumerate(ledgers):
        with ledger:
            for step in steps:
                ledger.write(step, 0, np.array([step * world + number]))


def test_each_rank_has_a_file_and_readers_get_all_lines_in_order(tmp_path: Path) -> None:
    write(tmp_path, 3, range(4))
    assert len(list(tmp_path.glob("ledger*.jsonl"))) == 3
    lines = read_ledger(tmp_path)
    assert [line["ids"] for line in lines] == [[at] for at in range(12)]
    assert all(line["rank"] == 0 for line in lines[::3])


def test_a_smaller_world_removes_the_later_lines_of_all(tmp_path: Path) -> None:
    write(tmp_path, 3, range(4))
    write(tmp_path, 1, range(2, 4))
    assert [(line["step"], line["rank"]) for line in read_ledger(tmp_path)] == [
        *((step, rank) for step in range(2) for rank in range(3)),
        (2, 0),
        (3, 0),
    ]


def test_a_torn_line_in_the_middle_is_survived(tmp_path: Path) -> None:
    write(tmp_path, 1, range(3))
    text = (tmp_path / LEDGER).read_text().splitlines(keepends=True)
    (tmp_path / LEDGER).write_text(text[0] + text[1][:9] + "\n" + text[2] + text[0][:5])
    assert [line["step"] for line in read_ledger(tmp_path)] == [0, 2]


def test_no_half_a_line_stays_on_a_full_disk(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(tmp_path, Rank()) as ledger:
        ledger.rewind(0)
        ledger.write(0, 0, np.arange(4))
        size = (tmp_path / LEDGER).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                ledger.write(1, 0, np.arange(4))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        ledger.write(1, 0, np.arange(4))
    lines = (tmp_path / LEDGER).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
