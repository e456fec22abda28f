"""What can go wrong with the workers of a run under Ray Train, and what happens then.

a worker or its node dies      Ray Train restarts all workers, at most `train.max_failures` times;
                               they resume from the newest checkpoint
a node is to be preempted      Ray warns the workers, which save a checkpoint at once
SIGTERM to the driver          all workers save and stop, exit code 143 (see `sigterm.py`)
a worker hangs                 it ends itself (see `watchdog.py`) and counts as dead
an expected error              ends the run: after a restart it would be raised again; so does
                               what the machine refuses for good, such as a full disk
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import ray.train

from derain import errors
from derain.config.training import TrainConfig
from derain.errors import StoppedError
from derain.pipelines.train.run_folder import FAILURE, read_json, write_json
from derain.storage import refusals
from derain.training.process import interrupt

log = logging.getLogger(__name__)

HEALTH_CHECK_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
"""Ray Train's own limit, for a worker process that does not respond at all."""


def failure_config(train: TrainConfig) -> ray.train.FailureConfig:
    """How many failures are allowed; preemptions that Ray recognises do not count."""
    os.environ[HEALTH_CHECK_TIMEOUT] = str(train.hang_timeout_s)
    return ray.train.FailureConfig(max_failures=train.max_failures)


def is_preemption_near() -> bool:
    """Whether Ray has announced the preemption of a node; all workers must call it together."""
    return ray.train.get_preemption_info() is not None


@contextlib.contextmanager
def noting_expected_errors(run: Path, world: int) -> Iterator[None]:
    """Around a worker's part: note an expected error in the run's folder, which ends the run.

    A single worker then ends as if it had succeeded. One of several raises the error, so that Ray
    ends the others; the workers that Ray starts in their place find the note and end.
    """
    try:
        yield
    except StoppedError:
        return
    except Exception as error:
        expected = refusals.expected(error) if refusals.lasts(error) else None
        if expected is None:
            raise
        note = {"kind": type(expected).__name__, "message": str(expected)}
        write_json(run / FAILURE, note)
        if world > 1:
            raise


def is_noted(run: Path) -> bool:
    """Whether an expected error has ended the run."""
    return (run / FAILURE).exists()


def forget(run: Path) -> None:
    """Remove the note of an earlier command."""
    (run / FAILURE).unlink(missing_ok=True)


def raise_noted(run: Path, name: str) -> None:
    """Raise the expected error that ended the run, or StoppedError if it was asked to stop."""
    for stacks in run.glob("stacks-rank*.txt"):
        if stacks.stat().st_size:
            log.error("A worker hung and was ended; this file shows where it hung: %s", stacks)
    if is_noted(run):
        note = read_json(run / FAILURE)
        raise getattr(errors, note["kind"])(note["message"])
    if interrupt.stop_requested(run):
        raise StoppedError(f"{name}: stopped as requested. Continue with --resume {name}.")
