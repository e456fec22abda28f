"""Commands for MLflow's runs and model registry: register, promote, demote, models, sync, ui."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from derain.cli import complete
from derain.cli.options import Json, Trust
from derain.cli.printed import versions as output
from derain.cli.printed.results import Results
from derain.errors import UsageError

Reason = Annotated[str, typer.Option(help="Why; recorded with time and user.")]
OnlyShown = Annotated[bool, typer.Option("--dry-run", help="Show the change, and make none.")]


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
    reason: Reason = "",
    dry_run: OnlyShown = False,
    as_json: Json = False,
) -> None:
    """Make a model version the champion."""
    results = Results(as_json)
    from derain.tracking.champions import promote

    _show_change(results, promote(name, version, reason=reason, dry_run=dry_run))


def demote(
    name: Annotated[str, typer.Argument(help="A registered model.")],
    reason: Reason = "",
    dry_run: OnlyShown = False,
    as_json: Json = False,
) -> None:
    """Make the version champion that was it before the present one."""
    results = Results(as_json)
    from derain.tracking.champions import demote

    _show_change(results, demote(name, reason=reason, dry_run=dry_run))


def _show_change(results: Results, change: Any) -> None:
    from derain.pipelines.register.versions import details

    (version,) = details(change.name, change.version)
    before = "no version" if change.before is None else f"version {change.before}"
    text = f"{change.name} version {change.version}, champion; before: {before}"
    results.show({**version, "change": dataclasses.asdict(change)}, text)


def models(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME [VERSION] | compare A B]",
            help="A model, one of its versions, or two versions such as net/1 net@champion.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the registered model versions, show one, or compare two."""
    results = Results(as_json)
    words = words or []
    if not words:
        from derain.tracking.registry import models

        rows = [dataclasses.asdict(item) for item in models()]
        results.show({"models": rows}, output.versions(rows))
        return
    from derain.pipelines.register.versions import compare, details

    if words[0] == "compare" and len(words) == 3:
        compared = compare(*words[1:])
        results.show(compared, output.versions_compared(compared))
    elif len(words) == 1 or (len(words) == 2 and words[1].isdecimal()):
        found = details(words[0], int(words[1]) if words[1:] else None)
        results.show(
            {"models": found}, output.version(found[0]) if words[1:] else output.versions(found)
        )
    else:
        raise UsageError(
            f"models {' '.join(words)}: expected nothing, NAME, NAME VERSION, or compare A B."
        )


def sync(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs or sweeps, such as runs/NAME.")
    ],
) -> None:
    """Send records that the MLflow store has not received yet."""
    from derain.tracking.outbox import OUTBOX_FOLDER
    from derain.tracking.runs import sync

    for run in runs:
        if not run.is_dir():
            raise UsageError(f"{run}: no such run. Give the folder of a run, such as runs/NAME.")
        sync(run / OUTBOX_FOLDER)
        for of_trial in sorted(run.glob(f"*/{OUTBOX_FOLDER}")):
            sync(of_trial)


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port of the web page.")] = 5000,
) -> None:
    """Serve MLflow's web page for the runs in the store, on this machine only."""
    from derain.tracking.ui import serve_ui

    serve_ui(port)
