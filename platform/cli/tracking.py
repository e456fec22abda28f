"""Commands for MLflow's runs and model registry: register, promote, models, sync, ui."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from derain.cli import complete, output
from derain.cli.options import Json, Trust
from derain.cli.output import Results
from derain.errors import UsageError


def register(
    model: Annotated[
        Path, typer.Argument(help="A finished run, its checkpoint, a sweep, or a model folder.")
    ],
    name: Annotated[str, typer.Option(help="The registered model; it is created if missing.")],
    on: Annotated[
        list[str] | None,
        typer.Option(metavar="PREPARED", help="Score a model folder on this first; repeatable."),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="How it is scored.", autocompletion=complete.protocols)
    ] = "rain13k",
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Register a run, a checkpoint or imported weights as a new model version."""
    results = Results(as_json)
    from derain.pipelines.register.verb import register

    done = register(model, name, on=on or (), protocol=protocol, trust=trust)
    results.show(done, f"{done.name} version {done.version}, {done.alias}")


def promote(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    version: Annotated[int, typer.Argument(help="The version to promote.")],
    as_json: Json = False,
) -> None:
    """Make a model version the champion."""
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


def sync(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, such as runs/NAME.")],
) -> None:
    """Send records that the MLflow store has not received yet."""
    from derain.tracking.outbox import OUTBOX_FOLDER
    from derain.tracking.runs import sync

    for run in runs:
        if not run.is_dir():
            raise UsageError(f"{run}: no such run. Give the folder of a run, such as runs/NAME.")
        sync(run / OUTBOX_FOLDER)


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port of the web page.")] = 5000,
) -> None:
    """Serve MLflow's web page for the runs in the store, on this machine only."""
    from derain.tracking.ui import serve_ui

    serve_ui(port)
