"""The driver is killed 20 times; a worker is stopped as a whole, so that it cannot end itself."""

import os
import re
import signal
import time
from pathlib import Path

import numpy as np

from tests.pipelines.train.test_train import children
from tests.soak.stack import (
    assert_nothing_lost,
    driver,
    result_of,
    step_of,
    wait_for,
    written_config,
)

DRIVER_KILLS = 20
HANG_TIMEOUT_S = 20


def test_the_driver_is_killed_twenty_times(tmp_path: Path) -> None:
    steps, random = 20 * (DRIVER_KILLS + 2), np.random.default_rng(0)
    config, run = written_config(tmp_path, steps=steps), tmp_path / "runs" / "run"
    began = time.monotonic()
    for number in range(DRIVER_KILLS):
        before = step_of(run)
        process = driver(config, *(["--resume", "run"] if run.exists() else []))
        wait_for(lambda before=before: step_of(run) > before or (run / "result.json").exists())
        time.sleep(random.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (run / "result.json").exists(), f"done after {number} kills: more steps"
    result = result_of(driver(config, "--resume", "run"))
    seconds = time.monotonic() - began
    assert result["steps"] == steps
    assert_nothing_lost(run, steps)
    unbroken = written_config(tmp_path, steps=steps, ledger=False)
    alone = result_of(driver(unbroken, "--set", "name=unbroken"))
    assert alone["weights_sha256"] == result["weights_sha256"]
    print(f"\n{DRIVER_KILLS} driver kills, {seconds:.0f} s, the weights are the same")


def test_a_worker_that_is_stopped_is_found_and_replaced(tmp_path: Path) -> None:
    config = written_config(tmp_path, steps=10**6, hang_timeout_s=HANG_TIMEOUT_S)
    run = tmp_path / "runs" / "run"
    process = driver(config)
    wait_for(lambda: step_of(run) >= 40)
    (stopped,) = [pid for pid in children(process.pid) if "RayTrainWorker" in _command(pid)]
    os.kill(stopped, signal.SIGSTOP)
    at = step_of(run)
    found = wait_for(lambda: not _command(stopped))
    replaced = found + wait_for(lambda: step_of(run) > at)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 143
    assert_nothing_lost(run, step_of(run))
    told = (tmp_path / "log").read_text()
    assert not re.search("Traceback", told), told
    print(f"\nstopped at step {at}, killed by Ray after {found:.0f} s (limit {HANG_TIMEOUT_S}), ")
    print(f"its successor was past that after {replaced:.0f} s")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
