"""The command `doctor`, and its list."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from derain.cli import complete
from derain.cli.options import Json, Profile, Set
from derain.cli.printed.results import Results


def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="Check what this config needs, too: paths, device, data, weights.",
            autocompletion=complete.configs,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster whose nodes to check. Default: RAY_ADDRESS."),
    ] = None,
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Check this machine, or a cluster: what is there, what is missing, what to do.

    Exit code 1 if a check fails.
    """
    results = Results(as_json)
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    from derain.config import load_config
    from derain.pipelines.doctor.verb import doctor

    loaded = load_config(config, profile=profile, overrides=overrides or ()) if config else None
    found = doctor(loaded)
    results.show(found, listed(found["checks"]))
    if any(check["status"] == "fail" for check in found["checks"]):
        raise typer.Exit(1)


def listed(checks: Sequence[Mapping[str, str]]) -> str:
    """A line for each check, and one below it with what to do."""
    width = max(len(check["name"]) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check['status']:<4}  {check['name']:<{width}}  {check['found']}")
        if check["remedy"]:
            lines.append(f"{'':<{width + 8}}-> {check['remedy']}")
    return "\n".join(lines)
