"""Commands that measure: evaluate, leaderboard, density."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli import complete
from derain.cli.options import (
    ConfigFile,
    Device,
    Json,
    Profile,
    Protocol,
    Set,
    Stride,
    Trust,
    worker_count,
)
from derain.cli.printed import scores as output
from derain.cli.printed.results import Results

if TYPE_CHECKING:
    from derain.pipelines.evaluate.detectors import DownstreamSpec


def evaluate(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL]... PREPARED...",
            help="Models (models:/NAME@ALIAS, run, checkpoint, model folder or exported file), "
            "none only with --results, then one or more prepared datasets.",
            autocompletion=complete.models,
        ),
    ],
    result: Annotated[
        list[str] | None,
        typer.Option(
            "--results",
            metavar="NAME=FOLDER",
            help="Score images that another program wrote, paired by name; repeatable.",
        ),
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DATASET/SPLIT",
            help="What a method was trained on, if that was not recorded; repeatable.",
        ),
    ] = None,
    protocol: Protocol = None,
    report: Annotated[Path | None, typer.Option(help="Also write a Markdown report.")] = None,
    tables: Annotated[
        Path | None,
        typer.Option(help="Folder for the papers' tables with our rows: .md, .csv, .tex, .html."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a table with every image, and to go on after a kill."),
    ] = None,
    workers: Annotated[
        str,
        typer.Option(help="Processes: 1 is this one, more are Ray's. auto: as many as pay off."),
    ] = "auto",
    gallery: Annotated[
        Path | None, typer.Option(help="Also write an HTML page with the images side by side.")
    ] = None,
    downstream: Annotated[
        str | None,
        typer.Option(help="A detector or segmenter: module:Class, or a network of torchvision."),
    ] = None,
    downstream_weights: Annotated[
        Path | None, typer.Option(help="Its weights, for a network of torchvision.")
    ] = None,
    lpips: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="ALEXNET HEADS", help="Also measure LPIPS, from its weight files."),
    ] = None,
    track: Annotated[
        bool, typer.Option("--track", help="Record metrics and files as an MLflow run.")
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="module:Name", help="A metric of your own; repeatable."),
    ] = None,
    device: Device = "auto",
    trust: Trust = False,
    stride: Stride = None,
    as_json: Json = False,
) -> None:
    """Score models, or images that other programs wrote, on prepared datasets.

    Exit code 1 if an image or a dataset cannot be scored; the others are.
    """
    results = Results(as_json)
    from derain.evaluation.lpips import LpipsFiles
    from derain.pipelines.evaluate.results_method import (
        parse_arguments,
        parse_results,
        parse_training,
    )
    from derain.pipelines.evaluate.verb import evaluate

    others = parse_results(result or [])
    models, prepared = parse_arguments(arguments, with_results=bool(others))
    found = evaluate(
        models,
        prepared,
        results=others,
        stated=parse_training(trained_on or []),
        protocols=protocol or ["rain13k"],
        report=report,
        tables=tables,
        out=out,
        workers=worker_count(workers),
        gallery=gallery,
        downstream=_downstream(downstream, downstream_weights),
        lpips=LpipsFiles(str(lpips[0]), str(lpips[1])) if lpips else None,
        track=track,
        metrics=metric or (),
        device=device,
        trust=trust,
        stride=stride,
    )
    results.show(found, output.scores(found))
    if any(item["left_out"] for item in (found, *found["results"])):
        raise typer.Exit(1)


def _downstream(name: str | None, weights: Path | None) -> "DownstreamSpec | None":
    """The values of --downstream and --downstream-weights."""
    from derain.pipelines.evaluate.detectors import DownstreamSpec

    if name is None:
        if weights is not None:
            raise typer.BadParameter("--downstream-weights needs --downstream.")
        return None
    return DownstreamSpec(name, str(weights) if weights else None)


def leaderboard(
    csv: Annotated[Path | None, typer.Option(help="Also write a CSV file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
    leaks: Annotated[
        bool, typer.Option(help="Compare training images with the measured ones; kept.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Rank the registered versions among those measured on the same images."""
    results = Results(as_json)
    from derain.pipelines.leaderboard import files
    from derain.pipelines.leaderboard.verb import leaderboard

    files.check_files([csv, html])
    board = leaderboard(check_leaks=leaks)
    if csv:
        files.write_csv(board, csv)
    if html:
        files.write_html(board, html)
    results.show(board, output.leaderboard(board))


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
