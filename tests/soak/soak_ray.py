"""The driver is killed 20 times; a worker is suspended, so that it cannot end itself."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from tests.processes import command_line, descendants, wait_for
from tests.soak.stack import (
    assert_nothing_lost,
    result_of,
    start_train,
    step_of,
    stop,
    write_config,
)

DRIVER_KILLS = 20
HANG_TIMEOUT_S = 20


def test_twenty_driver_kills_change_nothing(tmp_path: Path) -> None:
    steps, rng = 20 * (DRIVER_KILLS + 2), np.random.default_rng(0)
    config, run = write_config(tmp_path, steps=steps), tmp_path / "runs" / "run"
    start = time.monotonic()
    for number in range(DRIVER_KILLS):
        before = step_of(run)
        process = start_train(config, "--resume", "run")  # which also begins it
        wait_for(lambda before=before: step_of(run) > before or (run / "result.json").exists())
        time.sleep(rng.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (run / "result.json").exists(), (
            f"the run ended after {number} kills: raise `steps`"
        )
    result = result_of(start_train(config, "--resume", "run"))
    seconds = time.monotonic() - start
    assert result["steps"] == steps
    assert_nothing_lost(run, steps)
    uninterrupted = write_config(tmp_path, steps=steps, ledger=False)
    alone = result_of(start_train(uninterrupted, "--set", "name=unbroken"))
    assert alone["weights_sha256"] == result["weights_sha256"]
    print(f"\n{DRIVER_KILLS} driver kills, {seconds:.0f} s, the weights are the same")


def test_a_suspended_worker_is_found_and_replaced(tmp_path: Path) -> None:
    config = write_config(tmp_path, steps=10**6, hang_timeout_s=HANG_TIMEOUT_S)
    run = tmp_path / "runs" / "run"
    process = start_train(config)
    wait_for(lambda: step_of(run) >= 40)
    workers = [pid for pid in descendants(process.pid) if "RayTrainWorker" in command_line(pid)]
    (suspended,) = workers
    os.kill(suspended, signal.SIGSTOP)
    at = step_of(run)
    found = wait_for(lambda: not command_line(suspended))
    replaced = found + wait_for(lambda: step_of(run) > at)
    assert_nothing_lost(run, stop(process, run))
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log, log
    print(f"\nsuspended at step {at}, killed by Ray after {found:.0f} s (limit {HANG_TIMEOUT_S}), ")
    print(f"its successor was past that step after {replaced:.0f} s")
