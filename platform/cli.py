"""derainctl: one thin command per verb, which parses, loads the config, calls and prints.

Logs and progress go to stderr, results to stdout. Heavy packages are imported by the command that
needs them, so that --help answers at once.
"""

import dataclasses
import logging
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TextIO

import typer

from derain import output
from derain.errors import ConfigError, DerainError, UsageError
from derain.output import Results

INTERRUPTED = 130

app = typer.Typer(
    help="Datasets, training and sweeps for image-deraining networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path, typer.Argument(help="A YAML file, such as configs/ldfps.yaml.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Profile = Annotated[str | None, typer.Option(help="A profile of the config file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config value; repeatable."),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Allow .pt2, TorchScript and classes, which may run code.")
]
Stride = Annotated[
    int | None, typer.Option(min=1, help="An exported file's sides are multiples of this.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="auto takes CUDA where there is one; cuda fails where there is none."),
]
Density = Literal["light", "moderate", "heavy", "mixed"]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and the resolved config.")]


@app.callback()
def common(
    debug: Annotated[bool, typer.Option(help="Show the traceback of expected errors.")] = False,
) -> None:
    """Options that come before the command."""
    _State.debug = debug
    _log_to_stderr()


@app.command()
def synthesize(
    out: Path,
    clean: Annotated[Path | None, typer.Option(help="Clean photographs; else bundled.")] = None,
    count: Annotated[int, typer.Option(min=1)] = 100,
    seed: int = 0,
    density: Density = "mixed",
    size_px: Annotated[int | None, typer.Option(help="Side of square crops; else whole.")] = None,
    as_json: Json = False,
) -> None:
    """Render rain on clean photographs, as a paired folder."""
    results = Results(as_json)
    from derain.data.synthesis import synthesize

    done = synthesize(clean, out, count=count, seed=seed, density=density, size_px=size_px)
    results.show(done, f"{done.pairs} pairs in {done.folder}")


@app.command()
def datasets(
    names: Annotated[list[str] | None, typer.Argument(help="Show these, with layout.")] = None,
    root: Annotated[Path | None, typer.Option(help="Say which lie in this folder.")] = None,
    as_json: Json = False,
) -> None:
    """List the known datasets: pairs, layout, where to get them, terms."""
    results = Results(as_json)
    from derain.pipelines.datasets import datasets

    rows = [dataclasses.asdict(row) for row in datasets(root, names)]
    if as_json or names:
        text = "\n\n".join(map(output.dataset_entry, rows))
        results.show({"datasets": rows}, text)
    else:
        results.show_datasets(rows, with_found=root is not None)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="A name of `derainctl datasets`.")],
    source: Annotated[str, typer.Argument(help="A folder, s3://... or gs://...")],
    out: Annotated[str, typer.Argument(help="A new folder, s3://... or gs://...")],
    split: Annotated[str | None, typer.Option(help="Else the dataset's first.")] = None,
    rain: Annotated[str | None, typer.Option(help="Rainy files, as 'in/{id}_{n:d}.jpg'.")] = None,
    clean: Annotated[str | None, typer.Option(help="Their clean files, as 'gt/{id}.jpg'.")] = None,
    clean_half: Annotated[
        Literal["left", "right"] | None, typer.Option(help="Both pictures are in the rainy file.")
    ] = None,
    share: Annotated[str, typer.Option(help="LOW:HIGH, a part of the clean pictures.")] = "0:1",
    without: Annotated[
        Path | None, typer.Option(help="Leave out what this leaks.json found.")
    ] = None,
    clean_once: Annotated[
        bool, typer.Option("--clean-once", help="Store a clean picture once for its rainy ones.")
    ] = False,
    shard_mib: Annotated[int, typer.Option(min=1, help="Size of a shard at most.")] = 128,
    strict: Annotated[bool, typer.Option(help="Fail if any picture cannot be used.")] = False,
    decode: Annotated[bool, typer.Option(help="Decode every picture too: slower.")] = False,
    as_json: Json = False,
) -> None:
    """Turn a dataset as published into shards, index and manifest."""
    results = Results(as_json)
    from derain.data.sources import naming, share_of
    from derain.pipelines.leaks import shared_pictures
    from derain.pipelines.prepare import prepare

    done = prepare(
        dataset,
        source,
        out,
        split=split,
        shard_mib=shard_mib,
        strict=strict,
        naming=naming(rain, clean, clean_half),
        share=share_of(share),
        decode=decode,
        clean_once=clean_once,
        without=None if without is None else shared_pictures(without),
    )
    text = f"{done.pairs} pairs, {done.shards} shards in {done.folder}"
    if done.quarantined:
        text += f"; {len(done.quarantined)} pictures left out, see its manifest.json"
    results.show(done, text)


@app.command()
def verify(
    prepared: Annotated[str, typer.Argument(help="A folder that `prepare` wrote, or s3://...")],
    as_json: Json = False,
) -> None:
    """Check every byte of a prepared dataset; exit code 1 if any is another one."""
    results = Results(as_json)
    from derain.pipelines.verify import verify

    done = verify(prepared)
    text = f"{done.pairs} pairs in {done.shards} shards are whole: {done.manifest_sha256}"
    results.show(done, text if done.ok else "\n".join(map(str, done.problems)))
    if not done.ok:
        raise typer.Exit(1)


@app.command()
def leaks(
    train: Annotated[str, typer.Argument(help="A prepared dataset, or s3://... of one.")],
    test: Annotated[str, typer.Argument(help="Another one.")],
    distance: Annotated[int | None, typer.Option(min=0, max=255, help="Bits, of 256.")] = None,
    report: Annotated[Path | None, typer.Option(help="A new folder for the pictures.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit code 1 where there are any.")] = False,
    as_json: Json = False,
) -> None:
    """Find clean pictures that are in both of two prepared datasets."""
    results = Results(as_json)
    from derain.pipelines.leaks import DISTANCE, leaks
    from derain.pipelines.leaks_report import refuse_occupied, summary, write_report

    if report is not None:
        refuse_occupied(report)  # not after an hour of hashing
    found = leaks(train, test, distance=DISTANCE if distance is None else distance)
    if report is not None:
        write_report(found, report)
    results.show(found, "\n".join(summary(found)))
    if strict and found.matches:
        raise typer.Exit(1)


@app.command()
def train(
    config: ConfigFile,
    profile: Profile = None,
    overrides: Set = None,
    resume: Annotated[str | None, typer.Option(help="Continue this run.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train one network."""
    results = Results(as_json)
    from derain.config import load_config, parse_overrides

    loaded = load_config(config, profile=profile, overrides=overrides or ())
    if resume is not None:
        from derain.pipelines.resume import config_to_resume

        loaded = config_to_resume(loaded, resume, parse_overrides(overrides or ()))
    if dry_run:
        from derain.building import describe

        planned = describe(loaded)
        results.show(planned, output.network_summary(planned["network"]) + loaded.to_yaml())
        return
    from derain.pipelines import train

    result = train.train(loaded) if resume is None else train.resume(loaded)
    results.show(result, output.run_summary(result))


@app.command()
def sweep(
    config: Annotated[Path | None, typer.Argument(help="Not needed with --resume.")] = None,
    profile: Profile = None,
    overrides: Set = None,
    resume: Annotated[str | None, typer.Option(help="Continue this sweep.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train every trial of a search space, rank them, register the best."""
    results = Results(as_json)
    from derain.config import Config, load_config, parse_overrides

    loaded = load_config(config, profile=profile, overrides=overrides or ()) if config else None
    if loaded and loaded.sweep is None:
        raise ConfigError(f"{config}: has no `sweep` section; use `derainctl train`.")
    from derain.tune import report, sweep

    if resume is not None:
        if profile and loaded is None:
            raise UsageError("--profile is one of a config file: give that file as well.")
        given = parse_overrides(overrides or ())
        output_dir = loaded.output_dir if loaded else given.get("output_dir", "runs")
        do = sweep.describe_resumed if dry_run else sweep.resume
        result = do(resume, loaded, output_dir, given)
    elif loaded is None:
        raise UsageError("Give a config file such as configs/ldfps.yaml, or --resume NAME.")
    else:
        result = sweep.describe(loaded) if dry_run else sweep.sweep(loaded)
    if dry_run:
        resolved = Config.model_validate(result["config"]).to_yaml()
        results.show(result, output.plan_summary(result, resolved))
        return
    results.show(result, report.summary(result["report"]) + output.next_steps(result))


@app.command()
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


@app.command()
def density(
    config: ConfigFile,
    prepared: str,
    label: Annotated[str, typer.Option(help="The label that holds the truth.")] = "density",
    profile: Profile = None,
    overrides: Set = None,
    as_json: Json = False,
) -> None:
    """Count which prompt CLIP matches to pictures of each rain density, as Table 1 does."""
    results = Results(as_json)
    from derain.config import load_config
    from derain.pipelines.density import density

    loaded = load_config(config, profile=profile, overrides=overrides or ())
    found = density(loaded, prepared, label)
    results.show(found, output.matches(found, label))


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="models:/NAME@alias or a checkpoint folder")],
    inputs: Annotated[list[Path], typer.Argument(help="Pictures or folders of them.")],
    out: Annotated[Path, typer.Option(help="Where the clean pictures go.")],
    device: Device = "auto",
    trust: Trust = False,
    stride: Stride = None,
    as_json: Json = False,
) -> None:
    """Derain pictures."""
    results = Results(as_json)
    from derain.pipelines.predict import predict

    written = predict(model, inputs, out, device=device, trust=trust, stride=stride)
    results.show({"pictures": written}, "\n".join(written))


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="models:/NAME@alias or a checkpoint folder")],
    out: Path,
    format: Annotated[str, typer.Option(help="onnx, torch-export or folder")] = "folder",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels; else any size.")] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Write a model for other tools: ONNX, torch.export, or a plain model folder."""
    results = Results(as_json)
    from derain.pipelines.export import export

    written = export(model, out, format, size_px=_height_width(size), trust=trust)
    results.show({"written": str(written), "format": format}, str(written))


@app.command(name="import")
def import_(
    weights: Annotated[Path, typer.Argument(help=".safetensors, .pt or .pth, as published")],
    out: Annotated[Path, typer.Argument(help="The model folder to make.")],
    network: Annotated[str | None, typer.Option(help="Else recognised by its content.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="Of the network.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make published weights a model folder, to evaluate, predict with and export."""
    results = Results(as_json)
    from derain.config import parse_overrides
    from derain.pipelines.export import import_weights

    folder, what = import_weights(weights, out, network, parse_overrides(overrides or ()))
    results.show({"folder": str(folder), "weights": what}, f"{what} in {folder}")


@app.command()
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


@app.command()
def promote(name: str, version: int, as_json: Json = False) -> None:
    """Make a version the champion."""
    results = Results(as_json)
    from derain.tracking.registry import promote

    done = promote(name, version)
    results.show(done, f"{done.name} version {done.version}, {', '.join(done.aliases)}")


@app.command()
def models(as_json: Json = False) -> None:
    """List the registered model versions."""
    results = Results(as_json)
    from derain.tracking.registry import models

    found = models()
    rows = [dataclasses.asdict(item) for item in found]
    results.show({"models": rows}, output.versions(rows))


@app.command()
def sync(runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")]) -> None:
    """Send what runs recorded while the MLflow store was away."""
    from derain.tracking.runs import sync

    for run in runs:
        if not run.is_dir():
            raise UsageError(f"{run}: no such run; expected the folder of one, as runs/NAME.")
        sync(run / "tracking")


@app.command()
def ui(port: int = 5000) -> None:
    """Open the MLflow UI on the store that the runs are in."""
    from derain.tracking.store import serve_ui

    serve_ui(port)


def main() -> NoReturn:
    """Run a command; exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    try:
        app()
    except DerainError as error:
        if _State.debug:
            raise
        print(f"derainctl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as ended:  # typer turns Ctrl-C into this
        if ended.code == INTERRUPTED:
            print("derainctl: interrupted", file=sys.stderr)
        raise
    sys.exit(0)


class _State:
    debug = False


class _ToStderr(logging.StreamHandler):
    """Follows sys.stderr, so that lines appear above a progress bar and not inside it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr


def _log_to_stderr() -> None:
    logger = logging.getLogger("derain")
    logger.setLevel(logging.INFO)
    logger.handlers = [_ToStderr()]


def _height_width(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--size {size}: expected WIDTHxHEIGHT, for example 256x192.")
    return int(height), int(width)


if __name__ == "__main__":
    main()
