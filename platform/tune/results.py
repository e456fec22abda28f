"""The results of a sweep: ranks its trials, registers the best, writes the report."""

import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch

from derain.config import Config
from derain.errors import DerainError
from derain.models import is_user_defined
from derain.pipelines.named.checkpoint_of import SWEEP
from derain.pipelines.register.verb import register
from derain.pipelines.train.result import mlflow_test_metrics, score_test
from derain.pipelines.train.run_folder import IDENTITY, RESULT, read_json, write_json
from derain.pipelines.train.workers import needs
from derain.storage.refusals import expected
from derain.tracking.runs import RunLog
from derain.tune import space
from derain.tune.journal import Event, Journal, started_and_ended
from derain.tune.report import compare, gallery, report
from derain.tune.report.compare import Row

log = logging.getLogger(__name__)


def finish_sweep(
    config: Config, journal: Journal, record: RunLog, seconds: float
) -> dict[str, Any]:
    """Rank the trials, write the report and SWEEP, and then register the best.

    The best is chosen by validation; only then are the test images looked at, and for the best
    alone unless `sweep.test_all` is set. In this order, because the results of hours must not
    depend on a store: a registration that fails is a warning, and `register_error` in the result,
    as a failure on the test images is `test_error`. `seconds` is what the sweep has taken.

    Returns what `derainctl sweep --json` prints. Raises DerainError, and registers nothing, if no
    trial has finished or none is within the limits.
    """
    assert config.sweep is not None
    metric, limits, costs = config.sweep.metric, config.sweep.limits, config.sweep.costs
    rows = trial_rows(config, journal.events)
    finished = [row for row in rows if row["status"] == "finished"]
    if not finished:
        raise DerainError(f"{config.name}: no trial finished. {_why_none(rows)}")
    ranking = compare.ranked(finished, metric, limits)
    best = ranking[0]
    if not compare.within(best, limits):
        raise DerainError(
            f"{config.name}: no trial is within sweep.limits ({limits}). "
            "Extend the space and resume, or start a new sweep with other limits."
        )
    result = {
        "name": config.name,
        "profile": config.profile,
        "trials": rows,
        "best": best["name"],
        "points": compare.standings(ranking, metric),
        "front": compare.pareto_front(ranking, metric, costs, limits),
        "test": None,
        "test_error": None,
        "registered": None,
        "register_error": None,
        "report": str(config.folder / report.MARKDOWN),
        "mlflow_run_id": record.run_id,
        "folder": str(config.folder),
        "seconds": seconds,
    }
    gallery.write(config, ranking, config.folder / report.FOLDER)
    report.write(config, ranking, result)
    write_json(config.folder / SWEEP, result)
    if config.data.test:
        result |= _try_to_test(config, ranking, record.uri)
        for row in rows:
            row["test"] = result["tests"].get(row["name"])
        result["test"] = result.pop("tests").get(best["name"])
        report.write(config, ranking, result)
        write_json(config.folder / SWEEP, result)
    if config.register_ is not None:
        result |= _try_to_register(config, best, journal)
        report.write(config, ranking, result)  # which version it became, or why none
        write_json(config.folder / SWEEP, result)
    record.folder(config.folder / report.FOLDER, report.FOLDER)
    record.metrics(0, {f"best_{name}": value for name, value in best["metrics"].items()})
    if result["test"]:
        tested = mlflow_test_metrics(result["test"]).items()
        record.metrics(0, {f"best_{name}": value for name, value in tested})
    return result


def _try_to_test(config: Config, ranking: Sequence[Row], uri: str) -> dict[str, Any]:
    """`tests`: the metrics on the test images of the best trial, or of all, by the trial's name.
    `test_error`: why there are none, or not all."""
    assert config.sweep is not None
    tests: dict[str, Any] = {}
    best, *others = ranking
    try:
        for row in (best, *others) if config.sweep.test_all else (best,):
            tests[row["name"]] = _test(config, row, uri)
    except Exception as error:  # whatever it is, the sweep has its results
        reason = " ".join(str(error).split()) or type(error).__name__
        command = shlex.join(["derainctl", "evaluate", best["checkpoint"], *config.data.test])
        log.warning(
            "sweep %s: its results are complete, but the test images are not scored: %s Repeat "
            "that with `%s`.", config.name, reason, command,
            exc_info=None if isinstance(error, DerainError) else error,
        )  # fmt: skip
        return {"tests": tests, "test_error": f"{reason} Repeat it with `{command}`."}
    return {"tests": tests}


def _test(config: Config, row: Row, uri: str) -> dict[str, Any]:
    """The metrics of a trial on the test images, kept in its RESULT and its MLflow run."""
    folder = Path(row["folder"])
    result = read_json(folder / RESULT)
    if result.get("test") is None:
        cpus, gpus = (min(1, math.ceil(need)) for need in needs(config))
        task = ray.remote(_score_test).options(num_cpus=cpus, num_gpus=gpus)
        tree = config.model_dump(mode="json")
        try:
            result["test"] = ray.get(task.remote(tree, row["checkpoint"]))
        except ray.exceptions.RayTaskError as error:
            raise expected(error) or error from error
        write_json(folder / RESULT, result)
        with RunLog(row["name"], uri=uri, run_id=row["mlflow_run_id"]) as record:
            record.metrics(row["steps"], mlflow_test_metrics(result["test"]))
    return result["test"]


def _score_test(tree: dict[str, Any], checkpoint: str) -> dict[str, Any] | None:
    config = Config.model_validate(tree)
    torch.set_num_threads(config.train.cpu_threads or 1)
    return score_test(config, checkpoint)


def _why_none(rows: Sequence[Mapping[str, Any]]) -> str:
    """The error of the first trial, and how many ended with others."""
    errors = [row["error"] for row in rows if row["status"] == "failed"]
    if not errors:
        return (
            f"{len(rows)} were started, and all stopped before their last step. Continue the sweep "
            "with --resume."
        )
    others = len(errors) - errors.count(errors[0])
    more = f" ({others} of {len(errors)} failed with another: see journal.jsonl.)" if others else ""
    return f"The first error: {errors[0]}{more}"


def trial_rows(config: Config, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Every trial that was started, in the order of the plan, with its latest outcome."""
    started, outcomes = started_and_ended(events)
    return [
        _row(config, trial, started[trial.name], outcomes.get(trial.name))
        for trial in space.plan(config)
        if trial.name in started
    ]


def _row(
    config: Config, trial: space.Trial, started: Event, outcome: Event | None
) -> dict[str, Any]:
    """A trial as `derainctl sweep --json` lists it; a parameter it does not have is null."""
    assert config.sweep is not None
    folder = config.folder / trial.name
    row: dict[str, Any] = {
        "name": trial.name,
        "point": trial.point,
        "params": {key: started["params"].get(key) for key in config.sweep.space},
        "seed": trial.config.seed,
        "folder": str(folder),
    }
    empty = dict.fromkeys(("metrics", "input", "test", "seconds", "mlflow_run_id"))
    if outcome is None or outcome["status"] == "failed":
        error = outcome["error"] if outcome else "did not end"
        return {**row, **empty, "status": "failed", "error": error}
    if outcome["status"] == "paused":
        measured = {"metrics": outcome["metrics"], "mlflow_run_id": _run_id(folder)}
        return {**row, **empty, **measured, "status": "stopped", "steps": outcome["step"]}
    result = outcome["result"]
    keys = ("metrics", "input", "seconds", "mlflow_run_id", "loss", "weights_sha256", "steps")
    saved = folder / "checkpoints" / Path(result["checkpoint"]).name
    finished = {"status": "finished", "costs": outcome["costs"], "checkpoint": str(saved)}
    return {**row, **finished, **{key: result[key] for key in keys}, "test": None}


def _run_id(folder: Path) -> str | None:
    identity = folder / IDENTITY
    return read_json(identity)["run_id"] if identity.is_file() else None


def _try_to_register(config: Config, best: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
    """The values of `registered` and `register_error`, one of them null."""
    assert config.register_ is not None
    try:
        return {"registered": _register(config.register_.name, best, journal)}
    except Exception as error:  # whatever it is, the sweep has its results
        command = _command_to_register(config, best)
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning(
            "sweep %s: its results are complete, but trial %s is not registered: %s Repeat that "
            "with `%s`.", config.name, best["name"], reason, command,
            exc_info=None if isinstance(error, DerainError) else error,
        )  # fmt: skip
        return {"register_error": f"{reason} Repeat it with `{command}`."}


def _register(name: str, best: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
    """Register the best trial, unless the journal says that it already is."""
    for event in journal.events:
        if event["event"] == "registered" and event["trial"] == best["name"]:
            return event["as"]
    # Trusted, as this very sweep has trained it.
    version = register(best["checkpoint"], name, trust=True)
    registered = {"name": version.name, "version": version.version, "alias": version.alias}
    journal.write("registered", **{"trial": best["name"], "as": registered})
    return registered


def _command_to_register(config: Config, best: Mapping[str, Any]) -> str:
    assert config.register_ is not None
    network = best["params"].get("model.name") or config.model.name
    trust = ["--trust"] if is_user_defined(network) else []
    command = ["derainctl", "register", best["checkpoint"], "--name", config.register_.name]
    return shlex.join([*command, *trust])
