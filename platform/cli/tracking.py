"""MLflow's records and its model registry: register, promote, models, sync, ui."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from derain.cli import output
from derain.cli.options import Json, Trust
from derain.cli.output import Results
from derain.errors import UsageError


def register(
    checkpoint: Path,
    name: Annotated[str, typer.Option()],
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Make a scored checkpoint a version of a registered model."""
    results = Results(as_json)
    from derain.pipelines.register import register

    done = register(checkpoint, name, trust=trust)
    results.show(done, f"{done.name} version {done.version}, {done.alias}")


def promote(name: str, version: int, as_json: Json = False) -> None:
    """Make a version the champion."""
    results = Results(as_json)
    from derain.tracking.registry import promote

    done = promote(name, version)
    results.show(done, f"{done.name} version {done.version}, {', '.join(done.aliases)}")


def models(as_json: Json = False) -> None:
    """List the registered model versions."""
    results = Results(as_json)
    from derain.tracking.registry import models

    found = models()
    rows = [dataclasses.asdict(item) for item in found]
    results.show({"models": rows}, output.versions(rows))


def sync(runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")]) -> None:
    """Send what runs recorded while the MLflow store was away."""
    from derain.tracking.runs import sync

    for run in runs:
        if not run.is_dir():
            raise UsageError(f"{run}: no such run; expected the folder of one, as runs/NAME.")
        sync(run / "tracking")


def ui(port: int = 5000) -> None:
    """Open the MLflow UI on the store that the runs are in."""
    from derain.tracking.store import serve_ui

    serve_ui(port)
