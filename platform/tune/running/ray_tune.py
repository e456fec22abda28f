"""Runs the queue of a sweep under Ray Tune, whose workers are kept from trial to trial.

Ray Tune only places the work: the queue decides which segment is next, and the journal holds the
outcomes, so a sweep is resumed without any state of Ray Tune's.
"""

import contextlib
import itertools
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.tune
import ray.tune.progress_reporter
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from derain.config import Config
from derain.errors import StoppedError
from derain.pipelines import nodes
from derain.pipelines.deaths import reason_of
from derain.pipelines.sigterm import asking_at_sigterm
from derain.pipelines.train.progress import show_progress
from derain.pipelines.train.recording import TrackingTarget
from derain.pipelines.train.workers import needs
from derain.training.process import interrupt
from derain.tune import space
from derain.tune.journal import Journal
from derain.tune.running.cohorts import size_of
from derain.tune.running.queue import Queue, count_retries, to_journal
from derain.tune.running.worker import BrokenProcessError, Work, Worker
from derain.tune.search.base import Outcome, Segment

log = logging.getLogger(__name__)

_NOISY_LOGGERS = ("ray.tune", "ray.air")
"""They print a traceback for every failed trial, which is in the journal, and warn that results
have no metrics, which are in the runs."""


class QueueSearcher(Searcher):
    """Hands segments of the queue to Ray Tune and journals their outcomes.

    One Ray Tune trial is one attempt at a cohort of segments. The journal has a line before a
    segment starts and another after it has ended, so after a crash or kill the next driver knows
    which segments are done.
    """

    def __init__(
        self,
        queue: Queue,
        journal: Journal,
        work_of: Callable[[Sequence[Segment]], Work],
        *,
        cohort: int,
        retries: int,
    ) -> None:
        super().__init__()
        self._queue, self._journal, self._work_of = queue, journal, work_of
        self._cohort, self._retries = cohort, retries
        self._retries_of = Counter(count_retries(journal.events))
        self._running: dict[str, list[Segment]] = {}
        self._ended: list[Segment] = []
        self.stopping = False
        """Whether the sweep was asked to stop: nothing more is started."""

    def to_show(self) -> dict[str, Path]:
        """The folders, by name, of the trials that are under way or have ended since the last call.

        Another thread than that of Ray Tune calls it.
        """
        ended, self._ended = self._ended, []
        return _folders([*ended, *itertools.chain(*list(self._running.values()))])

    def ask_to_stop(self) -> None:
        """Ask all running trials to save a checkpoint and stop, and start no other."""
        self.stopping = True
        for folder in _folders([*itertools.chain(*self._running.values())]).values():
            interrupt.request_stop(folder)

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles a copy beside its own state; there is nothing to restore from it."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the state is in the journal."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next cohort of segments; None while the search waits for results."""
        if self._queue.finished or self.stopping:
            return Searcher.FINISHED
        segments = self._queue.take_cohort(self._cohort)
        if not segments:
            return None
        for segment in segments:
            beside = [other.key for other in segments if other is not segment]
            self._journal.write("started", **to_journal(segment), beside=beside)
        self._running[trial_id] = segments
        if self.stopping:  # asked meanwhile
            self.ask_to_stop()
        return {"work": asdict(self._work_of(segments))}

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Journal the outcome of each segment, or retry it."""
        if error:
            return  # Ray Tune calls `_Callbacks.on_trial_error` next, which has the traceback
        if result is None or "outcomes" not in result:
            self.on_crash(trial_id, "")
        else:
            self._settle_all(trial_id, [Outcome(**outcome) for outcome in result["outcomes"]])

    def on_crash(self, trial_id: str, traceback: str, error: BaseException | None = None) -> None:
        """Journal that the process of a cohort ended with an error; its segments are retried.

        A BrokenProcessError says which of its trials is the cause; otherwise each may be.
        """
        segments = self._running[trial_id]
        self._journal.write("crashed", keys=[segment.key for segment in segments], trace=traceback)
        if isinstance(error, BrokenProcessError):
            self._settle_all(trial_id, [Outcome(**outcome) for outcome in error.outcomes])
            return
        reason = reason_of(error, traceback)
        names = [trial.name for segment in segments for trial in segment.trials]
        self._settle_all(
            trial_id, [Outcome(n, "failed", 0, error=reason, may_pass=True) for n in names]
        )

    def _settle_all(self, trial_id: str, outcomes: Sequence[Outcome]) -> None:
        by_trial = {outcome.trial: outcome for outcome in outcomes}
        segments = self._running.pop(trial_id)
        self._ended.extend(segments)
        for segment in segments:
            self._settle(segment, [by_trial[trial.name] for trial in segment.trials])

    def _settle(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        if any(outcome.status == "interrupted" for outcome in outcomes):
            self._queue.retry(segment.key)  # no retry of its own is used up
            return
        passing = [outcome for outcome in outcomes if outcome.may_pass]
        if passing and self.stopping:
            self._queue.retry(segment.key)  # a resume goes on with it
            return
        if passing and self._retries_of[segment.key] < self._retries:
            self._retry(segment, passing[0])
            return
        self._journal.write("ended", key=segment.key, outcomes=[asdict(o) for o in outcomes])
        for outcome in outcomes:
            if outcome.status == "failed":
                log.error("trial %s failed: %s", outcome.trial, outcome.error)
        self._queue.done(segment.key, outcomes)

    def _retry(self, segment: Segment, failure: Outcome) -> None:
        self._retries_of[segment.key] += 1
        self._journal.write("retried", key=segment.key, error=failure.error)
        log.warning("trial %s failed and is retried: %s", failure.trial, failure.error)
        self._queue.retry(segment.key)


def _folders(segments: Sequence[Segment]) -> dict[str, Path]:
    return {trial.name: trial.config.folder for each in segments for trial in each.trials}


class _Callbacks(ray.tune.progress_reporter.TrialProgressCallback):
    """Takes the place of Ray Tune's own callback, which prints a line at the end of every trial."""

    def __init__(self, searcher: QueueSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Print nothing: `show_progress` shows the progress of the runs."""

    def on_trial_error(self, *_: Any, trial: TuneTrial, **__: Any) -> None:
        """Tell the searcher why a process ended."""
        file = trial.error_file and Path(trial.error_file)
        traceback = file.read_text(encoding="utf-8") if file and file.is_file() else ""
        error = _unpickled(trial.pickled_error_file)
        self._searcher.on_crash(trial.trial_id, traceback, getattr(error, "cause", error))


def _unpickled(path: str | None) -> Any:
    """The error that Ray has written beside its text; None if it has not, or could not."""
    with contextlib.suppress(Exception):
        return ray.cloudpickle.loads(Path(path or "").read_bytes())
    return None


def run_trials(
    config: Config, queue: Queue, journal: Journal, target: TrackingTarget, *, at_once: int
) -> None:
    """Run everything in the queue, `at_once` cohorts at a time; returns when nothing is left.

    Raises StoppedError after a request to stop, when the running trials have saved a checkpoint.
    """
    assert config.sweep is not None
    if queue.finished:
        return

    def work_of(segments: Sequence[Segment]) -> Work:
        return _work(config, segments, {"parent_run_id": target.parent_run_id})

    planned = space.plan(config)
    plan = journal.first("plan") or {}
    cohort = size_of(config, len(planned), at_once, plan.get("shared", 0.0))
    searcher = QueueSearcher(queue, journal, work_of, cohort=cohort, retries=config.sweep.retries)
    _configure_ray_tune()
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(
            ray.tune.with_parameters(Worker, uri=target.uri), _resources(config)
        ),
        tune_config=ray.tune.TuneConfig(
            search_alg=searcher,
            max_concurrent_trials=at_once,
            num_samples=-1,  # until the searcher has finished
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=ray.tune.RunConfig(
            name="tune",
            storage_path=str(config.folder / "ray"),
            verbose=0,
            callbacks=[_Callbacks(searcher)],
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    for trial in planned:
        interrupt.clear_stop_request(config.folder / trial.name)
    with (
        asking_at_sigterm("every running trial saves", searcher.ask_to_stop),
        show_progress(searcher.to_show, config.train.steps),
        nodes.logging_waits(),
    ):
        tuner.fit()
        if searcher.stopping:
            raise StoppedError(
                f"{config.name}: stopped as requested; its running trials have saved checkpoints. "
                f"Continue with --resume {config.name}."
            )
    shutil.rmtree(config.folder / "ray", ignore_errors=True)  # only Ray Tune's own state


def _configure_ray_tune() -> None:
    """Switch off what would print, write files or catch signals; Ray Tune reads these variables."""
    # Its handler would swallow Ctrl-C and return half a sweep as if it were complete.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables would appear between our log lines
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # each run writes its own metrics
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _work(config: Config, segments: Sequence[Segment], target: Mapping[str, Any]) -> Work:
    """What a worker needs to train these segments, which all end at the same step."""
    assert config.sweep is not None
    trials = [trial for segment in segments for trial in segment.trials]
    copies = segments[0].copies
    return Work(
        names=[trial.name for trial in trials],
        configs=[trial.config.model_dump(mode="json") for trial in trials],
        until=segments[0].until,
        target=target,
        copies=(str(config.folder / copies[0]), copies[1]) if copies else None,
        values=trials[0].params if config.sweep.search == "pbt" else None,
        costs=sorted({*config.sweep.costs, *config.sweep.limits}),
        gpu_share=config.sweep.gpu_fraction,
    )


def _resources(config: Config) -> dict[str, float]:
    """The resources of one Ray Tune trial.

    With one worker, the trial is the run itself. With more, Ray Train reserves resources for each
    worker, and the trial takes next to none.
    """
    if config.train.max_workers > 1:
        return {"memory": 1}  # one byte: with a share of a core, the last worker would never start
    cpus, gpus = needs(config)
    return {"cpu": cpus, "gpu": gpus}
