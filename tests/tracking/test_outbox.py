"""Records survive a failing sender and a killed process, and arrive in order."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from derain.tracking.outbox import SEND_AT, SUFFIX, Outbox, Record, unsent_names
from tests.processes import room_for

PUT_AND_WAIT = """
import sys, time
from pathlib import Path
from derain.tracking.outbox import Outbox
def unreachable(records):
    raise OSError("unreachable")
outbox = Outbox(Path(sys.argv[1]), "run", unreachable)
for number in range(5):
    outbox.put({"number": number})
print("put", flush=True)
time.sleep(600)
"""


class Store:
    """Accepts at most three records per call, and none while it is unreachable."""

    def __init__(self) -> None:
        self.reachable = threading.Event()
        self.received: list[int] = []

    def __call__(self, records: list[Record]) -> int:
        if not self.reachable.is_set():
            raise OSError("unreachable")
        self.received += [record["number"] for record in records[:3]]
        return len(records[:3])


def test_records_are_sent_once_the_store_is_reachable_again(tmp_path: Path) -> None:
    store = Store()
    outbox = Outbox(tmp_path, "run", store)
    for number in range(2 * SEND_AT):
        outbox.put({"number": number})
    assert not outbox.flush(timeout_s=0.1)
    assert store.received == []
    store.reachable.set()
    assert outbox.flush(timeout_s=60)
    assert store.received == list(range(2 * SEND_AT))
    assert outbox.path.stat().st_size == 0
    outbox.put({"number": -1})
    assert outbox.close(timeout_s=60) == 0
    assert store.received[-1] == -1
    assert not list(tmp_path.iterdir())


def test_a_slow_store_is_waited_for_as_long_as_it_takes_something(tmp_path: Path) -> None:
    taken: list[Record] = []

    def slow(records: Sequence[Record]) -> int:
        time.sleep(0.2)
        taken.append(records[0])
        return 1

    outbox = Outbox(tmp_path, "run", slow)
    for number in range(8):
        outbox.put({"number": number})
    assert not outbox.flush(timeout_s=0.5)
    assert not outbox.flush(timeout_s=10, limit_s=0.3)
    assert len(taken) < 8
    assert outbox.close(timeout_s=5, limit_s=60) == 0
    assert taken == [{"number": number} for number in range(8)]


def test_the_next_outbox_sends_what_a_closed_one_left(tmp_path: Path) -> None:
    store = Store()
    first = Outbox(tmp_path, "run", store)
    first.put({"number": 1})
    assert first.close(timeout_s=0) == 1
    assert unsent_names(tmp_path) == ["run"]
    store.reachable.set()
    assert Outbox(tmp_path, "run", store).close(timeout_s=60) == 0
    assert store.received == [1]
    assert unsent_names(tmp_path) == []


def test_a_disk_that_fills_up_costs_the_refused_record_only(tmp_path: Path) -> None:
    store = Store()
    first = Outbox(tmp_path, "run", store)
    first.put({"number": 1})
    size = first.path.stat().st_size
    with room_for(size + 10), pytest.raises(OSError, match="too large"):
        first.put({"number": 2, "artifact": "a name longer than there is room for"})
    assert first.path.stat().st_size == size
    first.put({"number": 3})
    assert first.close(timeout_s=0) == 2
    store.reachable.set()
    assert Outbox(tmp_path, "run", store).close(timeout_s=60) == 0
    assert store.received == [1, 3]


def test_the_records_of_a_killed_process_are_taken_over_but_not_those_of_a_live_one(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", PUT_AND_WAIT, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert unsent_names(tmp_path) == []
    store = Store()
    store.reachable.set()
    assert Outbox(tmp_path, "run", store).close(timeout_s=60) == 0
    assert store.received == []
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (file,) = tmp_path.glob(f"*{SUFFIX}")
    with file.open("a") as torn:
        torn.write(json.dumps({"number": 5})[:-3])
    assert Outbox(tmp_path, "run", store).close(timeout_s=60) == 0
    assert store.received == [0, 1, 2, 3, 4]


def test_damaged_records_are_left_out_with_a_word_and_the_others_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [b'{"number": 1}', b"\xff\xfe", b"[]", b"5", b"[" * 100_000, b'{"number": 2}', b"{"]
    (tmp_path / f"run.1-1{SUFFIX}").write_bytes(b"\n".join(lines))
    assert unsent_names(tmp_path) == ["run"]
    store = Store()
    store.reachable.set()
    assert Outbox(tmp_path, "run", store).close(timeout_s=60) == 0
    assert store.received == [1, 2]
    assert "left out, as they are damaged: 5 of 7 records" in caplog.text


def test_what_is_no_file_is_no_outbox(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"run.1-1{SUFFIX}")  # to open it would wait for a reader
    (tmp_path / f"run.1-2{SUFFIX}").mkdir()
    assert unsent_names(tmp_path) == []
    assert Outbox(tmp_path, "run", Store()).close(timeout_s=0) == 0
