"""Between the search and Ray Tune: hands segments to the kept workers, journals what comes back."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.tune
import ray.tune.progress_reporter
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.experiment.config_parser import _create_trial_from_spec, _make_parser
from ray.tune.search import SearchAlgorithm

from derain.config import Config
from derain.pipelines.train.progress import watch
from derain.pipelines.train.run import TrackingTarget
from derain.pipelines.train.verb import wants_gpu
from derain.tune import space
from derain.tune.journal import Journal
from derain.tune.running.cohorts import size_of
from derain.tune.running.queue import Queue, attempts, described
from derain.tune.running.trials import Work, Worker
from derain.tune.search.segments import Outcome, Segment

log = logging.getLogger(__name__)

_TALKATIVE = ("ray.tune", "ray.air")
"""Loggers that print the traceback of every trial, and miss the figures that we do not give them;
what a process died of is in the journal."""


class Supply(SearchAlgorithm):
    """Ray Tune's search algorithm: one Ray Tune trial a cohort of segments and attempt.

    The journal has a line before a segment starts and one after it has ended, so that whatever
    dies, the next driver knows which segments are done. Ray Tune's own state is never read.
    """

    def __init__(
        self,
        queue: Queue,
        journal: Journal,
        work_of: Callable[[Sequence[Segment]], Work],
        *,
        at_once: int,
        cohort: int,
        retries: int,
    ) -> None:
        self._queue, self._journal, self._work_of = queue, journal, work_of
        self._at_once, self._cohort, self._retries = at_once, cohort, retries
        self._attempts = attempts(journal.events)
        self._tune_trials: dict[str, tuple[list[Segment], TuneTrial]] = {}
        self._spec: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune keeps a copy beside its own state; there is nothing in it to go on from."""
        return {}

    def add_configurations(self, experiments: Any) -> None:
        """What Ray Tune tells about the trainable."""
        (experiment,) = experiments if isinstance(experiments, list) else [experiments]
        self._spec = experiment.spec

    def next_trial(self) -> TuneTrial | None:
        """The next segments; None while all workers are busy or the search waits for results."""
        if len(self._tune_trials) >= self._at_once:
            return None
        segments = self._queue.take_cohort(self._cohort)
        if not segments:
            return None
        for segment in segments:
            beside = [other.key for other in segments if other is not segment]
            self._journal.write("started", **described(segment), beside=beside)
        spec = {**self._spec, "config": {"work": asdict(self._work_of(segments))}}
        trial = _create_trial_from_spec(spec, _make_parser())
        self._tune_trials[trial.trial_id] = segments, trial
        return trial

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Journal what came of each segment, or run it again."""
        segments, trial = self._tune_trials.pop(trial_id)
        names = [each.name for segment in segments for each in segment.trials]
        if error or result is None or "outcomes" not in result:
            reason = self._crashed(segments, trial)
            outcomes = [Outcome(n, "failed", 0, error=reason, may_pass=True) for n in names]
        else:
            outcomes = [Outcome(**outcome) for outcome in result["outcomes"]]
        told = dict(zip(names, outcomes, strict=True))
        for segment in segments:
            self._settle(segment, [told[each.name] for each in segment.trials])

    def _settle(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        attempt = self._attempts.get(segment.key, 0)
        lost = [outcome for outcome in outcomes if outcome.may_pass]
        if lost and attempt < self._retries:
            self._again(segment, lost[0])
            return
        self._journal.write("ended", key=segment.key, outcomes=[asdict(o) for o in outcomes])
        for outcome in outcomes:
            if outcome.status == "failed":
                log.error("trial %s failed: %s", outcome.trial, outcome.error)
        self._queue.done(segment.key, outcomes)

    def _crashed(self, segments: Sequence[Segment], trial: TuneTrial) -> str:
        """The last line of what ended a process; the journal keeps the whole of it."""
        told = trial.error_file and Path(trial.error_file)
        trace = told.read_text(encoding="utf-8") if told and told.is_file() else ""
        self._journal.write("crashed", keys=[segment.key for segment in segments], trace=trace)
        lines = [line.strip() for line in trace.splitlines() if line.strip()]
        return lines[-1] if lines else "its process died"

    def is_finished(self) -> bool:
        """Whether nothing runs and nothing will."""
        return self._queue.finished

    def _again(self, segment: Segment, lost: Outcome) -> None:
        self._attempts[segment.key] = self._attempts.get(segment.key, 0) + 1
        self._journal.write("retried", key=segment.key, error=lost.error)
        log.warning("trial %s is run again: %s", lost.trial, lost.error)
        self._queue.give_back(segment.key)


def train(
    config: Config, queue: Queue, journal: Journal, target: TrackingTarget, *, at_once: int
) -> None:
    """Give Ray Tune what is in the queue; returns when nothing is left."""
    assert config.sweep is not None
    # Ray Tune's own handler would swallow Ctrl-C and return half a sweep as if it were whole.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables would stand between our lines
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # each run has its own figures
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)  # else workers start one by one
    if queue.finished:
        return

    def work_of(segments: Sequence[Segment]) -> Work:
        return _work(config, segments, target)

    cohort = size_of(config, len(space.plan(config)), at_once)
    supply = Supply(
        queue, journal, work_of, at_once=at_once, cohort=cohort, retries=config.sweep.retries
    )
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(Worker, _resources(config)),
        tune_config=ray.tune.TuneConfig(
            search_alg=supply, reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id
        ),
        run_config=ray.tune.RunConfig(
            name="tune",
            storage_path=str(config.folder / "ray"),
            verbose=0,
            callbacks=[_Silent()],
            checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    for talkative in _TALKATIVE:
        logging.getLogger(talkative).setLevel(logging.CRITICAL)
    folders = {trial.name: config.folder / trial.name for trial in space.plan(config)}
    with watch(folders, config.train.steps):
        tuner.fit()
    shutil.rmtree(config.folder / "ray", ignore_errors=True)  # only its own copies are there


class _Silent(ray.tune.progress_reporter.TrialProgressCallback):
    """In the place of Ray Tune's own, which prints a line at the end of a trial."""

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Say nothing: `watch` shows the runs."""

    def on_trial_error(self, *_: Any, **__: Any) -> None:
        """Say nothing: the journal and the log have it."""


def _work(config: Config, segments: Sequence[Segment], target: TrackingTarget) -> Work:
    """Segments to one step as a worker gets them."""
    assert config.sweep is not None
    trials = [trial for segment in segments for trial in segment.trials]
    (first, *_), copies = trials, segments[0].copies
    return Work(
        names=[trial.name for trial in trials],
        configs=[trial.config.model_dump(mode="json") for trial in trials],
        until=segments[0].until,
        target=asdict(target),
        copies=(str(config.folder / copies[0]), copies[1]) if copies else None,
        values=first.params if config.sweep.search == "pbt" else None,
        costs=sorted({*config.sweep.costs, *config.sweep.limits}),
    )


def _resources(config: Config) -> dict[str, float]:
    """A trial of one worker is the run itself; with more, the workers ask for their own."""
    assert config.sweep is not None
    if config.train.max_workers > 1:
        return {"memory": 1}  # a byte: a share of a core would keep the last worker waiting
    return {
        "cpu": config.train.cpu_threads or 1,
        "gpu": config.sweep.gpu_fraction if wants_gpu(config) else 0,
    }
