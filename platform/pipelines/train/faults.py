"""What goes wrong around a run under Ray Train, and what becomes of it.

a worker or its node dies     Ray Train starts the workers again (`train.max_failures`), they go
                              on from the newest checkpoint
a node is to be taken away    Ray warns the workers; they save at once
SIGTERM to the driver         all workers save and stop, exit code 143
a worker hangs                it ends itself (see `watchdog`) and counts as dead
an error that is expected     ends the run: to start again would bring it again
"""

import contextlib
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import ray.train

from derain import errors
from derain.config.training import TrainConfig
from derain.errors import DerainError, StoppedError
from derain.training.process import interrupt

log = logging.getLogger(__name__)

FAILURE = "failure.json"
"""In the run's folder: the expected error that ended a worker."""
FROZEN = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
"""Ray Train's own limit, for a process that is stopped as a whole."""


def scaling(train: TrainConfig, *, gpu: bool) -> ray.train.ScalingConfig:
    """How many workers."""
    workers = train.num_workers
    return ray.train.ScalingConfig(num_workers=workers, use_gpu=gpu)


def failing(train: TrainConfig) -> ray.train.FailureConfig:
    """How often they may die; what Ray knows to be a preemption does not count."""
    os.environ[FROZEN] = str(train.hang_timeout_s)
    return ray.train.FailureConfig(max_failures=train.max_failures)


def preemption_is_near() -> bool:
    """Whether Ray is about to take a node away; all workers must ask at once."""
    return ray.train.get_preemption_info() is not None


@contextlib.contextmanager
def stopping_at_sigterm(run: Path) -> Iterator[None]:
    """SIGTERM asks the run to save and stop, during the block."""
    interrupt.forget_stop(run)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: _ask(run))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ask(run: Path) -> None:
    log.warning("SIGTERM: the run saves a checkpoint after its next step and stops")
    interrupt.ask_to_stop(run)


@contextlib.contextmanager
def expected_errors_noted(run: Path, world: int) -> Iterator[None]:
    """Around a worker's part: an expected error is left for the driver, and ends the run.

    A single worker ends as if all were well. One of several raises, so that Ray ends the others;
    those that Ray starts in their place find the note (`was_noted`) and end.
    """
    try:
        yield
    except StoppedError:
        return
    except DerainError as error:
        note = {"kind": type(error).__name__, "message": str(error)}
        (run / FAILURE).write_text(json.dumps(note), encoding="utf-8")
        if world > 1:
            raise


def was_noted(run: Path) -> bool:
    """Whether an expected error has ended the run."""
    return (run / FAILURE).exists()


def forget(run: Path) -> None:
    """Begin again."""
    (run / FAILURE).unlink(missing_ok=True)


def check(run: Path, name: str) -> None:
    """Raise what ended the run, if it was an expected error or a request to stop."""
    for stacks in run.glob("stacks-rank*.txt"):
        if stacks.stat().st_size:
            log.error("A worker made no step for too long and was ended; where it hung: %s", stacks)
    if was_noted(run):
        note = json.loads((run / FAILURE).read_text(encoding="utf-8"))
        raise getattr(errors, note["kind"])(note["message"])
    if interrupt.was_asked_to_stop(run):
        raise StoppedError(f"{name}: stopped as asked. Continue with --resume {name}.")
