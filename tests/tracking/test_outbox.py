"""Records survive a sender that fails and a process that is killed, and arrive in order."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from derain.tracking.outbox import SEND_AT, SUFFIX, Record, Spool, left_over

PUTS_AND_WAITS = """
import sys, time
from pathlib import Path
from derain.spool import Spool
def away(records):
    raise OSError("away")
spool = Spool(Path(sys.argv[1]), "run", away)
for number in range(5):
    spool.put({"number": number})
print("put", flush=True)
time.sleep(600)
"""


class Store:
    """Takes at most three records at once, and none while it is away."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.taken: list[int] = []

    def __call__(self, records: list[Record]) -> int:
        if not self.there.is_set():
            raise OSError("away")
        self.taken += [record["number"] for record in records[:3]]
        return len(records[:3])


def test_what_a_store_did_not_take_it_gets_when_it_is_back(tmp_path: Path) -> None:
    store = Store()
    spool = Spool(tmp_path, "run", store)
    for number in range(2 * SEND_AT):
        spool.put({"number": number})
    assert not spool.flush(timeout_s=0.1)
    assert store.taken == []
    store.there.set()
    assert spool.flush(timeout_s=60)
    assert store.taken == list(range(2 * SEND_AT))
    assert spool.path.stat().st_size == 0
    spool.put({"number": -1})
    assert spool.close(timeout_s=60) == 0
    assert store.taken[-1] == -1
    assert not list(tmp_path.iterdir())


def test_what_is_left_at_the_end_is_sent_by_the_next(tmp_path: Path) -> None:
    store = Store()
    first = Spool(tmp_path, "run", store)
    first.put({"number": 1})
    assert first.close(timeout_s=0) == 1
    assert left_over(tmp_path) == ["run"]
    store.there.set()
    assert Spool(tmp_path, "run", store).close(timeout_s=60) == 0
    assert store.taken == [1]
    assert left_over(tmp_path) == []


def test_a_killed_process_loses_nothing_and_one_that_lives_is_left_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUTS_AND_WAITS, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert left_over(tmp_path) == []
    store = Store()
    store.there.set()
    assert Spool(tmp_path, "run", store).close(timeout_s=60) == 0
    assert store.taken == []
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (file,) = tmp_path.glob(f"*{SUFFIX}")
    with file.open("a") as torn:
        torn.write(json.dumps({"number": 5})[:-3])
    assert Spool(tmp_path, "run", store).close(timeout_s=60) == 0
    assert store.taken == [0, 1, 2, 3, 4]
