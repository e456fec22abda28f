"""Trains segments of trials in a worker process, which is kept from trial to trial.

What is slow in a new process (importing torch and open_clip, the CUDA context) happens once per
worker. Nothing else is carried over: threads, random state, network and MLflow run are created anew
for every segment, so a trial ends with the same bits in a kept process as in one of its own.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.tune

from derain.config import Config
from derain.errors import DerainError, OccupiedError, StoppedError
from derain.models.cost import cost
from derain.pipelines.train.metrics_file import read_metrics
from derain.pipelines.train.recording import TrackingTarget
from derain.pipelines.train.run import run_cohort_in_this_process, run_in_this_process
from derain.pipelines.train.run_folder import IDENTITY, PAUSED, RESULT, read_json
from derain.pipelines.train.workers import run_under_ray_train
from derain.pipelines.watching.log_lines import log_lines_of
from derain.storage import refusals
from derain.tracking.outbox import OUTBOX_FOLDER
from derain.tracking.runs import RunLog
from derain.training import checkpoint
from derain.training.cohort import MemberError
from derain.training.factory import build_network, without_pretrained
from derain.training.process.device import breaks_process, free_cached_memory, limit_memory
from derain.training.process.distributed import Rank
from derain.tune.search.base import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Segments that end at the same step, as they are sent to a worker: plain values only."""

    names: Sequence[str]
    configs: Sequence[Mapping[str, Any]]
    until: int
    target: Mapping[str, Any]
    copies: tuple[str, int] | None = None
    """Another trial's folder and the step of the checkpoint to continue from."""
    values: Mapping[str, Any] | None = None
    """Values of the search space to record as metrics, as they change while the trial trains."""
    costs: Sequence[str] = ()
    gpu_share: float = 1.0
    """Share of the memory of its GPU that the process may allocate."""


class BrokenProcessError(Exception):
    """An unexpected error: the process ends, so that no other trial meets what it left behind.

    `outcomes` are those of all its trials, as plain values; trials that did nothing wrong are
    `interrupted`, and go on in another process.
    """

    def __init__(self, reason: str, outcomes: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(reason, outcomes)
        self.outcomes = outcomes

    def __str__(self) -> str:
        return str(self.args[0])


class Worker(ray.tune.Trainable):
    """A process that Ray Tune keeps; every cohort is a Ray Tune trial of one iteration."""

    def setup(self, config: dict[str, Any], uri: str) -> None:
        """Take the first work, and the address of the MLflow store, which may have a password:
        Ray Tune writes what is in `config` to files that everybody may read."""
        self._work, self._uri = config["work"], uri

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next work; True keeps the process."""
        self._work = new_config["work"]
        return True

    def step(self) -> dict[str, Any]:
        """Do the work; an unexpected error ends the process too."""
        target = {**self._work["target"], "uri": self._uri}
        work = Work(**{**self._work, "target": target})
        configs = [Config.model_validate(dict(tree)) for tree in work.configs]
        with log_lines_of(configs, Rank(), trials=True):
            outcomes = perform(work)
        return {"outcomes": [asdict(outcome) for outcome in outcomes], "done": True}


def perform(work: Work) -> list[Outcome]:
    """Train the trials of some segments; returns the outcome of each."""
    configs = [Config.model_validate(dict(tree)) for tree in work.configs]
    target = TrackingTarget(**work.target)
    if work.copies is not None:
        _copy(configs[0].folder, *work.copies)
    remaining = [config for config in configs if _read_result(config, work.until) is None]
    for config in configs:
        if config not in remaining:
            _end_record(config, target)
    try:
        errors = _train(remaining, target, work) if remaining else {}
    except MemberError as error:
        told = [asdict(each) for each in _outcomes(work, configs, error.failed, error.name)]
        raise BrokenProcessError(_reason(error.failed[error.name]), told) from error
    outcomes = _outcomes(work, configs, errors)
    if work.values:
        _record_values(configs[0], target, work)
    free_cached_memory()
    return outcomes


def _train(
    configs: Sequence[Config], target: TrackingTarget, work: Work
) -> Mapping[str, Exception]:
    """Train to a step; returns the expected errors by the name of the run.

    Raises MemberError for any other, and for one that leaves the GPU unusable in this process.
    """
    (config, *others), until = configs, work.until
    try:
        if config.train.max_workers > 1:
            run_under_ray_train(config, target, until)
            return {}
        if work.gpu_share < 1 and config.train.device != "cpu":
            limit_memory(work.gpu_share)
        if others:
            return run_cohort_in_this_process(configs, target, until)
        run_in_this_process(config, target, Rank(), until)
    except Exception as error:
        if others:
            raise  # a MemberError, or one that is no single member's: each is retried alone
        here = config.train.max_workers == 1
        if isinstance(error, DerainError) and not (here and breaks_process(error)):
            return {config.name: error}
        raise MemberError(config.name, {config.name: error}) from error
    return {}


def _outcomes(
    work: Work, configs: Sequence[Config], errors: Mapping[str, Exception], broken: str = ""
) -> list[Outcome]:
    """The outcome of each trial; `broken` is the run that ended the process before the others."""
    return [
        Outcome(name, "interrupted", 0)
        if broken and config.name not in errors and _read_result(config, work.until) is None
        else _outcome(name, config, work, errors.get(config.name))
        for name, config in zip(work.names, configs, strict=True)
    ]


def _reason(error: Exception) -> str:
    """An error in one line: what the machine refused, or the kind of a bug and its message."""
    return str(refusals.expected(error) or f"{type(error).__name__}: {error}")


def _read_result(config: Config, until: int) -> dict[str, Any] | None:
    """What a trial wrote at the end of its segment; None if it is not there yet.

    It may be there before the segment starts, if a driver died before it received the outcome. A
    run that has finished, at its last step or because its patience ended, has a RESULT.
    """
    if (config.folder / RESULT).is_file():
        return read_json(config.folder / RESULT)
    paused = config.folder / PAUSED
    written = read_json(paused) if paused.is_file() else {}
    return written if written.get("step") == until else None


def _outcome(name: str, config: Config, work: Work, error: Exception | None) -> Outcome:
    written = _read_result(config, work.until)
    if error is not None or written is None:
        step = max(read_metrics(config.folder), default=0)
        reason = _reason(error) if error else "it ended without a result"
        return Outcome(name, "failed", step, error=reason, may_pass=_may_pass(error))
    finished, metrics = "steps" in written, written["metrics"]
    step = written["steps"] if finished else written["step"]
    not_finite = [key for key, value in metrics.items() if not math.isfinite(value)]
    if not_finite:
        reason = f"{not_finite[0]} is {metrics[not_finite[0]]}: the weights are not usable."
        return Outcome(name, "failed", step, error=reason)
    if not finished:
        return Outcome(name, "paused", step, metrics)
    costs = _costs(config, work.costs)
    return Outcome(name, "finished", step, metrics, result=written, costs=costs)


def _may_pass(error: Exception | None) -> bool:
    """Whether a failed trial could succeed if it is run again.

    It could after an error that is not ours or has another error as its cause, such as a lost
    worker of Ray Train; after a request to stop; and if the folder was in use, as a killed process
    may write to it for a moment longer.
    """
    if not isinstance(error, DerainError) or isinstance(error, OccupiedError | StoppedError):
        return True
    return error.__cause__ is not None


def _costs(config: Config, names: Sequence[str]) -> dict[str, float]:
    costs: dict[str, float] = {}
    if "seconds" in names:
        metrics = read_metrics(config.folder)
        last = max(metrics)  # below train.steps if the run's patience ended
        costs["seconds"] = last / metrics[last]["steps_per_s"]
    if {"parameters", "flops"} & set(names):
        counted = cost(build_network(without_pretrained(config)))
        costs |= {"parameters": counted.trained_parameters, "flops": 2 * counted.macs}
    return {name: costs[name] for name in names}


def _copy(folder: Path, other: str, step: int) -> None:
    """Copy another run's checkpoint, unless this run has already continued from it."""
    folder.mkdir(parents=True, exist_ok=True)
    with checkpoint.write_lock(folder):
        own = checkpoint.newest(folder)
        if own is None or own.state.step <= step:
            checkpoint.copy(Path(other), folder, step)


def _end_record(config: Config, target: TrackingTarget) -> None:
    """Send MLflow the rest of a run whose process died after it had written its result."""
    run_id = read_json(config.folder / IDENTITY)["run_id"]
    outbox = config.folder / OUTBOX_FOLDER
    with RunLog(config.name, uri=target.uri, run_id=run_id, outbox=outbox) as record:
        if not (config.folder / RESULT).is_file():
            record.pause()


def _record_values(config: Config, target: TrackingTarget, work: Work) -> None:
    """Log the values of this segment to the trial's MLflow run, as metrics."""
    run_id = read_json(config.folder / IDENTITY)["run_id"]
    with RunLog(config.name, uri=target.uri, run_id=run_id) as record:
        record.metrics(work.until, {f"value.{k}": v for k, v in _numbers(work.values or {})})
        if not (config.folder / RESULT).is_file():
            record.pause()


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers among nested values, by dotted key; other values are only in the journal."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers({f"{key}.{inner}": item for inner, item in value.items()})
        elif isinstance(value, list | tuple):
            yield from _numbers({f"{key}.{index}": item for index, item in enumerate(value)})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)
