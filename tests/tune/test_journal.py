"""The journal: what was written survives a kill, and only one process at a time may write."""

import resource
from pathlib import Path

import pytest

from derain.errors import DerainError, OccupiedError, UsageError
from derain.tune.journal import JOURNAL, Journal, read


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.write("plan", version=1, space={"train.lr": [1, 2]})
        journal.write("ended", key="a@4")
        assert [event["event"] for event in journal.events] == ["plan", "ended"]
    with Journal.open(tmp_path) as again:
        assert again.events == journal.events == read(tmp_path)
        assert again.first("plan") == {"event": "plan", "version": 1, "space": {"train.lr": [1, 2]}}
        assert again.first("finished") is None


@pytest.mark.parametrize("cut", [1, 5, -1])
def test_a_last_line_cut_short_counts_as_not_written(tmp_path: Path, cut: int) -> None:
    with Journal.open(tmp_path) as journal:
        journal.write("plan")
        journal.write("started", key="a@4")
    whole = (tmp_path / JOURNAL).read_bytes()
    first = whole.index(b"\n") + 1
    (tmp_path / JOURNAL).write_bytes(whole[: first + cut] if cut > 0 else whole[:cut])
    assert [event["event"] for event in read(tmp_path)] == ["plan"]
    with Journal.open(tmp_path) as journal:
        journal.write("ended", key="a@4")
    assert [event["event"] for event in read(tmp_path)] == ["plan", "ended"]


def test_a_line_that_was_cut_short_and_written_on_is_survived(tmp_path: Path) -> None:
    """As a version that did not look at what was written left it on a disk that was full."""
    (tmp_path / JOURNAL).write_text(
        '{"event": "plan"}\n'
        '{"event": "started", "key": "a@{"event": "ended", "key": "b@4"}\n'
        '{"event": "crashed", "trace": "{\\"event\\": \n'
        '{"event": "finished"}\n'
    )
    with Journal.open(tmp_path) as journal:
        assert [event["event"] for event in journal.events] == ["plan", "ended", "finished"]
        journal.write("resumed")
    assert read(tmp_path)[-1] == {"event": "resumed"}


def test_a_full_disk_takes_back_what_it_wrote_of_a_line(tmp_path: Path) -> None:
    """A limit of the file's size: a write beyond it stores what fits, as a full disk does."""
    with Journal.open(tmp_path) as journal:
        journal.write("plan")
        size = (tmp_path / JOURNAL).stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                journal.write("started", key="a@4")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / JOURNAL).stat().st_size == size
        journal.write("ended", key="b@4")
    assert [event["event"] for event in read(tmp_path)] == ["plan", "ended"]


def test_a_damaged_line_in_the_middle_is_reported(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"event": "plan"}\nrubbish\n{"event": "ended"}\n')
    for _ in range(2):  # it is not left locked
        with pytest.raises(UsageError, match="line 2 is damaged"):
            Journal.open(tmp_path)
    with pytest.raises(UsageError, match="line 2 is damaged"):
        read(tmp_path)


def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"event": "plan", "version": 99}\n')
    with pytest.raises(DerainError, match="version 99"):
        read(tmp_path)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path), pytest.raises(OccupiedError, match="another process"):
        Journal.open(tmp_path)
    with Journal.open(tmp_path) as free:
        free.write("plan")


def test_without_a_journal_there_are_no_events(tmp_path: Path) -> None:
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "started", "trials": 5}',
        '{"event": "started", "trials": ["a"]}',
        '{"event": "ended", "outcomes": [{"trial": "a"}]}',
        '{"event": 5}',
        "[" * 100_000,
    ],
)
def test_an_event_without_its_parts_is_damaged(tmp_path: Path, line: str) -> None:
    (tmp_path / JOURNAL).write_text(f'{{"event": "plan"}}\n{line}\n{{"event": "plan"}}\n')
    with pytest.raises(UsageError, match="line 2 is damaged"):
        read(tmp_path)
