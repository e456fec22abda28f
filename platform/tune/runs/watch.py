"""What runs, sweeps and their trials are doing now, from the files in their folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain.pipelines.train.metrics_file import read_latest_metrics
from derain.tune.runs.entry import Entry
from derain.tune.runs.found import list_all
from derain.tune.runs.run_state import config_or_none
from derain.tune.runs.sweep_state import read_sweep


@dataclass(frozen=True, kw_only=True)
class Now:
    """A run, a sweep or a running trial, as `derainctl watch` shows it; keys of its `--json`."""

    entry: Entry
    """The run, as `derainctl runs` lists it."""
    steps_per_s: float | None
    """Since its latest start; of a sweep the sum over its running trials. None unless it runs."""
    images_per_s: float | None
    """Crops a second of all ranks."""
    train_psnr: float | None
    """Of the latest logged batch, in dB."""
    gpu_memory_gib: float | None
    """The most that torch has held on the first GPU of a run; None on a CPU."""


def look(places: Sequence[Path]) -> list[Now]:
    """All runs and sweeps below some folders, each running sweep with its running trials.

    The running ones come first. It reads files only, so it shows what other machines train, if
    this one sees their folder.
    """
    found: list[Now] = []
    for entry in list_all(places):
        if entry.kind == "run" or entry.state != "running":
            found.append(_run(entry))
            continue
        sweep, trials = read_sweep(entry.folder, entry.name)
        running = [_run(trial) for trial in trials if trial.state == "running"]
        found += [_sweep(sweep, running), *running]
    return found


def _run(entry: Entry) -> Now:
    latest = _latest(entry)
    config = config_or_none(entry.folder) if latest else None
    speed = latest.get("steps_per_s")
    crops = config.train.batch_size if config else None
    return Now(
        entry=entry,
        steps_per_s=speed,
        images_per_s=speed * crops if speed and crops else None,
        train_psnr=latest.get("train_psnr"),
        gpu_memory_gib=latest.get("gpu_memory_gib"),
    )


def _latest(entry: Entry) -> Mapping[str, Any]:
    return read_latest_metrics(entry.folder) or {} if entry.state == "running" else {}


def _sweep(entry: Entry, running: Sequence[Now]) -> Now:
    return Now(
        entry=entry,
        steps_per_s=sum(trial.steps_per_s or 0 for trial in running) or None,
        images_per_s=sum(trial.images_per_s or 0 for trial in running) or None,
        train_psnr=None,
        gpu_memory_gib=None,
    )
