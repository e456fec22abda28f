"""Commands that measure: evaluate, density."""

from pathlib import Path
from typing import Annotated

import typer

from derain.cli import output
from derain.cli.options import ConfigFile, Device, Json, Model, Profile, Set, Stride, Trust
from derain.cli.output import Results


def evaluate(
    model: Model,
    prepared: Annotated[list[str], typer.Argument(help="One or more prepared datasets.")],
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="Such as rain13k or prenet; repeatable. Default: rain13k."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write a Markdown report.")] = None,
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
    if result["left_out"]:
        raise typer.Exit(1)


def density(
    config: ConfigFile,
    prepared: Annotated[str, typer.Argument(help="A prepared dataset with rain densities.")],
    label: Annotated[
        str, typer.Option(help="The label of the samples that holds the true density.")
    ] = "density",
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Count which prompt CLIP matches to images of each rain density (CLIP-RPN, Table 1)."""
    results = Results(as_json)
    from derain.config import load_config
    from derain.pipelines.density import density

    loaded = load_config(config, profile=profile, overrides=overrides or ())
    found = density(loaded, prepared, label)
    results.show(found, output.matches(found, label))
