"""evaluate and density."""

from pathlib import Path
from typing import Annotated

import typer

from derain.cli import output
from derain.cli.options import ConfigFile, Device, Json, Profile, Set, Stride, Trust
from derain.cli.output import Results


def evaluate(
    model: Annotated[str, typer.Argument(help="models:/NAME@alias or a checkpoint folder")],
    prepared: list[str],
    protocol: Annotated[
        list[str] | None, typer.Option(help="Repeatable; rain13k if none is named.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="A Markdown file to write.")] = None,
    device: Device = "auto",
    trust: Trust = False,
    stride: Stride = None,
    as_json: Json = False,
) -> None:
    """Score a model on prepared datasets."""
    results = Results(as_json)
    from derain.pipelines.evaluate import evaluate

    protocols = protocol or ["rain13k"]
    result = evaluate(
        model,
        prepared,
        protocols=protocols,
        report=report,
        device=device,
        trust=trust,
        stride=stride,
    )
    results.show(result, output.scores(result))


def density(
    config: ConfigFile,
    prepared: str,
    label: Annotated[str, typer.Option(help="The label that holds the truth.")] = "density",
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Count which prompt CLIP matches to images of each rain density, as Table 1 does."""
    results = Results(as_json)
    from derain.config import load_config
    from derain.pipelines.density import density

    loaded = load_config(config, profile=profile, overrides=overrides or ())
    found = density(loaded, prepared, label)
    results.show(found, output.matches(found, label))
