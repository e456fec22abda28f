"""The end of a sweep: rank what finished, register the best, write the report."""

from collections.abc import Mapping
from typing import Any

from derain.config import Config
from derain.errors import DerainError
from derain.pipelines.register import register
from derain.tracking.runs import RunLog
from derain.tune import restore
from derain.tune.journal import Journal
from derain.tune.report import compare, report


def conclude(config: Config, journal: Journal, record: RunLog) -> dict[str, Any]:
    """What `derainctl sweep --json` prints, after all that is to be done with it.

    Raises DerainError, and registers nothing, where no trial finished or none is within the limits.
    """
    assert config.sweep is not None
    metric, limits, costs = config.sweep.metric, config.sweep.limits, config.sweep.costs
    rows = restore.rows(config, journal.events)
    finished = [row for row in rows if row["status"] == "finished"]
    if not finished:
        errors = [row["error"] for row in rows if row["status"] == "failed"]
        raise DerainError(f"{config.name}: no trial finished. The first error: {errors[0]}")
    ranking = compare.ranked(finished, metric, limits)
    best = ranking[0]
    if not compare.within(best, limits):
        raise DerainError(f"{config.name}: no trial is within sweep.limits ({limits}).")
    result = {
        "name": config.name,
        "profile": config.profile,
        "trials": rows,
        "best": best["name"],
        "points": compare.standings(ranking, metric),
        "front": compare.front(ranking, metric, costs, limits),
        "registered": _registered(config, best, journal),
        "report": str(config.folder / report.MARKDOWN),
        "mlflow_run_id": record.run_id,
        "folder": str(config.folder),
    }
    report.write(config, ranking, result, report.compared(config, ranking))
    record.folder(config.folder / report.FOLDER, report.FOLDER)
    record.metrics(0, {f"best_{name}": value for name, value in best["metrics"].items()})
    return result


def _registered(config: Config, best: Mapping[str, Any], journal: Journal) -> dict[str, Any] | None:
    """Register the best trial, once."""
    if config.register_ is None:
        return None
    for event in journal.events:
        if event["event"] == "registered" and event["trial"] == best["name"]:
            return event["as"]
    done = register(best["checkpoint"], config.register_.name)
    registered = {"name": done.name, "version": done.version, "alias": done.alias}
    journal.write("registered", **{"trial": best["name"], "as": registered})
    return registered
