"""What happens in a trial's process, which lives on from trial to trial.

What a fresh process pays for, torch, open_clip and the CUDA context, is paid once a worker. Nothing
else stays: threads, random state, network and MLflow run are made anew for every segment, so a
trial has the same bits in a kept process as in one of its own.
"""

import gc
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.tune
import torch

from derain.config import Config
from derain.errors import DerainError, OccupiedError, StoppedError
from derain.models.cost import cost
from derain.pipelines.train.progress import read_metrics
from derain.pipelines.train.run import (
    IDENTITY,
    PAUSED,
    RESULT,
    SPOOL,
    TrackingTarget,
    read_json,
    run_cohort_in_this_process,
    run_in_this_process,
)
from derain.pipelines.train.verb import run_under_ray_train
from derain.tracking.runs import RunLog
from derain.training import checkpoint
from derain.training.factory import build_network, without_weights
from derain.training.process.distributed import Rank
from derain.tune.search.segments import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Segments to one step as they are sent to a worker: plain values only."""

    names: Sequence[str]
    configs: Sequence[Mapping[str, Any]]
    until: int
    target: Mapping[str, Any]
    copies: tuple[str, int] | None = None
    """Another trial's folder and the step of the checkpoint to go on from."""
    values: Mapping[str, Any] | None = None
    """To be recorded as metrics: values that change while the trial trains."""
    costs: Sequence[str] = ()


class Worker(ray.tune.Trainable):
    """A process that Ray Tune keeps: every segment is a Ray Tune trial of one iteration."""

    def setup(self, config: dict[str, Any]) -> None:
        """The first segment."""
        self._work = config["work"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next segment."""
        self._work = new_config["work"]
        return True

    def step(self) -> dict[str, Any]:
        """Train the segment; an error that is not ours ends the process with it."""
        outcomes = perform(Work(**self._work))
        return {"outcomes": [asdict(outcome) for outcome in outcomes], "done": True}


def perform(work: Work) -> list[Outcome]:
    """Train the trials of a segment and say what came of each."""
    configs = [Config.model_validate(dict(tree)) for tree in work.configs]
    target = TrackingTarget(**work.target)
    if work.copies is not None:
        _copy(configs[0].folder, *work.copies)
    left = [config for config in configs if _reached(config, work.until) is None]
    for config in configs:
        if config not in left:
            _end_record(config, target)
    failed = _train(left, target, work.until) if left else {}
    outcomes = [
        _outcome(name, config, work, failed.get(config.name))
        for name, config in zip(work.names, configs, strict=True)
    ]
    if work.values:
        _record(configs[0], target, work)
    _clear()
    return outcomes


def _train(configs: Sequence[Config], target: TrackingTarget, until: int) -> dict[str, Exception]:
    """Train to a step, or the end; the expected errors by the name of the run."""
    if len(configs) > 1:
        return run_cohort_in_this_process(configs, target, until)
    (config,) = configs
    try:
        if config.train.max_workers > 1:
            run_under_ray_train(config, target, until)
        else:
            run_in_this_process(config, target, Rank(), until)
    except DerainError as error:
        return {config.name: error}
    return {}


def _reached(config: Config, until: int) -> dict[str, Any] | None:
    """What a trial wrote that is at the segment's end already: a driver may die before it knows.

    A run that has finished, at its last step or because its patience ended, has a RESULT.
    """
    if (config.folder / RESULT).is_file():
        return read_json(config.folder / RESULT)
    paused = config.folder / PAUSED
    written = read_json(paused) if paused.is_file() else {}
    return written if written.get("step") == until else None


def _outcome(name: str, config: Config, work: Work, error: Exception | None) -> Outcome:
    written = _reached(config, work.until)
    if error is not None or written is None:
        step = max(read_metrics(config.folder), default=0)
        # What is not ours, such as a lost worker of Ray Train, may not come again; nor may being
        # asked to stop; and a process that was killed may write its run for a moment yet.
        ours = isinstance(error, DerainError) and not isinstance(
            error, OccupiedError | StoppedError
        )
        passing = not ours or bool(error and error.__cause__)
        return Outcome(name, "failed", step, error=str(error), may_pass=passing)
    finished, metrics = "steps" in written, written["metrics"]
    step = written["steps"] if finished else written["step"]
    wrong = [key for key, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        reason = f"{wrong[0]} is {metrics[wrong[0]]}: the weights are not usable."
        return Outcome(name, "failed", step, error=reason)
    if not finished:
        return Outcome(name, "paused", step, metrics)
    costs = _costs(config, work.costs)
    return Outcome(name, "finished", step, metrics, result=written, costs=costs)


def _costs(config: Config, wanted: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    if "seconds" in wanted:
        figures = read_metrics(config.folder)
        taken = max(figures)  # fewer than train.steps where its patience ended
        found["seconds"] = taken / figures[taken]["steps_per_s"]
    if {"parameters", "flops"} & set(wanted):
        counted = cost(build_network(without_weights(config)))
        found |= {"parameters": counted.trained_parameters, "flops": 2 * counted.macs}
    return {name: found[name] for name in wanted}


def _copy(folder: Path, other: str, step: int) -> None:
    """Take over another run's checkpoint, unless this one has gone on from it already."""
    folder.mkdir(parents=True, exist_ok=True)
    with checkpoint.writing(folder):
        own = checkpoint.newest(folder)
        if own is None or own.state.step <= step:
            checkpoint.copy(Path(other), folder, step)


def _end_record(config: Config, target: TrackingTarget) -> None:
    """A process that died after it had written its result may not have told MLflow all of it."""
    run_id = read_json(config.folder / IDENTITY)["run_id"]
    with RunLog(config.name, uri=target.uri, run_id=run_id, spool=config.folder / SPOOL) as record:
        if not (config.folder / RESULT).is_file():
            record.pause()


def _record(config: Config, target: TrackingTarget, work: Work) -> None:
    """Values of the segment that ends here, in the run's own MLflow record."""
    run_id = read_json(config.folder / IDENTITY)["run_id"]
    with RunLog(config.name, uri=target.uri, run_id=run_id) as record:
        record.metrics(work.until, {f"value.{k}": v for k, v in _numbers(work.values or {})})
        if not (config.folder / RESULT).is_file():
            record.pause()


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of nested values; what is not a number is in the journal alone."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers({f"{key}.{inner}": each for inner, each in value.items()})
        elif isinstance(value, list | tuple):
            yield from _numbers({f"{key}.{place}": each for place, each in enumerate(value)})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)


def _clear() -> None:
    """Give a GPU's memory back, so that trials beside this one can have it."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
