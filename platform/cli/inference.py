"""Commands that use trained networks: predict, serve, export, import."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain.cli import complete
from derain.cli.options import Device, Json, Model, Stride, Trust, worker_count
from derain.cli.printed.results import Results
from derain.data.images.kinds import Format
from derain.errors import UsageError
from derain.pipelines.serve import KEY_VARIABLE

if TYPE_CHECKING:
    from derain.inference.predictor import Tile
    from derain.pipelines.serve.deployment import Replicas


def predict(
    model: Model,
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Images, folders of images, patterns; - reads an image from stdin."),
    ],
    out: Annotated[Path, typer.Option(help="A folder for the derained images; - is stdout.")],
    format: Annotated[
        Format, typer.Option(help="Of the results. same: as each image, where it can hold them.")
    ] = "png",
    quality: Annotated[
        int | None,
        typer.Option(help="Of jpeg (default: 95) and webp (default: no losses), 1 to 100."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write image and result side by side.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are in the way.")
    ] = False,
    workers: Annotated[
        str,
        typer.Option(
            help="Processes: 1 is this one, more are Ray's. auto: one for each GPU, else core."
        ),
    ] = "1",
    device: Device = "auto",
    trust: Trust = False,
    stride: Stride = None,
    tile: Annotated[
        str,
        typer.Option(
            help="Cut larger images into tiles of so many pixels a side. auto: as needed."
        ),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Remove the rain from images. A command that was stopped goes on where it was.

    Exit code 1 if an image cannot be derained; the others are.
    """
    results = Results(as_json)
    from derain.pipelines.predict.encode import Form
    from derain.pipelines.predict.verb import predict, predict_bytes

    form, count = Form(format, quality), worker_count(workers)
    if "-" in (str(out), *map(str, inputs)):
        given = _one_image(inputs, out, alone=not (as_json or compare or overwrite or count != 1))
        results.show_bytes(
            predict_bytes(
                model, given, device=device, trust=trust, stride=stride, tile=_tile(tile), form=form
            )
        )
        return
    done = predict(
        model, inputs, out, workers=count, device=device, trust=trust, stride=stride,
        tile=_tile(tile), form=form, compare=compare, overwrite=overwrite,
    )  # fmt: skip
    results.show(done, "\n".join(done.pictures))
    if done.failed:
        raise typer.Exit(1)


def _one_image(inputs: Sequence[Path], out: Path, *, alone: bool) -> bytes:
    """The bytes of the image that goes to stdout. Raises UsageError for anything else."""
    if len(inputs) != 1 or str(out) != "-" or not alone:
        raise UsageError(
            "- is for one image: from stdin or a file to stdout, as in `predict MODEL - --out -`, "
            "without --json, --compare, --overwrite and --workers."
        )
    if str(inputs[0]) == "-":
        return sys.stdin.buffer.read()
    from derain.data.images.decode import read_file

    return read_file(inputs[0])


def _tile(text: str) -> "Tile":
    """The value of --tile."""
    if text == "auto":
        return "auto"
    if text == "none":
        return None
    if not text.isdecimal():
        raise UsageError(f"--tile is {text!r}; expected auto, none or a number of pixels.")
    return int(text)


def serve(
    model: Annotated[
        str | None,
        typer.Argument(help="What predict takes as MODEL.", autocompletion=complete.models),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME=MODEL", help="Serve several; repeatable."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 8000,
    replicas: Annotated[
        str, typer.Option(help="Processes with each network: N, or MIN:MAX as requests wait.")
    ] = "1",
    batch: Annotated[
        int, typer.Option(min=1, help="Images of one size that a network computes at once.")
    ] = 1,
    queue: Annotated[int, typer.Option(min=1, help="Requests in hand; more get 429.")] = 32,
    max_bytes: Annotated[int, typer.Option(min=1, help="Of a request.")] = 2**26,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of an image.")] = 25_000_000,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds for an answer.")] = 120.0,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with the key that requests need. Default: {KEY_VARIABLE}."),
    ] = None,
    device: Device = "auto",
    trust: Trust = False,
) -> None:
    """Serve models over HTTP, with a page to try them."""
    chosen = _models(model, models or [])
    key = _key(api_key_file)
    from derain.pipelines.serve.limits import Limits
    from derain.pipelines.serve.verb import serve

    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels, queue=queue, answer_s=time_limit)
    serve(
        chosen,
        host=host,
        port=port,
        replicas=_replicas(replicas),
        batch=batch,
        device=device,
        trust=trust,
        key=key,
        limits=limits,
    )


def _replicas(text: str) -> "Replicas":
    """The value of --replicas."""
    from derain.pipelines.serve.deployment import Replicas

    least, colon, most = text.partition(":")
    if not colon:
        most = least
    if not (least.isdecimal() and most.isdecimal()):
        raise UsageError(f"--replicas is {text!r}; expected N or MIN:MAX, such as 2 or 1:4.")
    replicas = Replicas(int(least), int(most))
    if not 1 <= replicas.least <= replicas.most:
        raise UsageError(f"--replicas is {text!r}; expected 1 or more, and MIN not above MAX.")
    return replicas


def _models(model: str | None, named: list[str]) -> dict[str, str]:
    chosen = {} if model is None else {"default": model}
    for text in named:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in chosen:
            raise UsageError(f"--model {text}: expected NAME=MODEL, each name once.")
        chosen[name] = value
    if not chosen:
        raise UsageError("Expected a MODEL to serve, found none. Give one, or --model NAME=MODEL.")
    return chosen


def _key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: the key cannot be read ({error}).") from None
    if not key:
        raise UsageError(f"{file}: expected a key, found nothing.")
    return key


def export(
    model: Annotated[
        str, typer.Argument(help="models:/NAME@ALIAS, a checkpoint or a model folder.")
    ],
    out: Annotated[Path, typer.Argument(help="NAME.onnx, NAME.pt2, or a new folder.")],
    format: Annotated[
        str | None,
        typer.Option(
            help="onnx, torch-export or folder. Default: what the ending of OUT says.",
            autocompletion=complete.formats,
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="WIDTHxHEIGHT in pixels, if fixed. Default: any size.")
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Export a model to other tools: as ONNX, torch.export or a plain model folder."""
    results = Results(as_json)
    from derain.pipelines.export import export, format_of

    written = export(model, out, format, size_px=_height_width(size), trust=trust)
    chosen = format or format_of(out)
    results.show({"written": str(written), "format": chosen}, f"wrote {written} ({chosen})")


def import_(
    weights: Annotated[Path, typer.Argument(help="The published .safetensors, .pt or .pth file.")],
    out: Annotated[Path, typer.Argument(help="The model folder to create.")],
    network: Annotated[
        str | None,
        typer.Option(
            help="The network. Default: recognised from the file.", autocompletion=complete.networks
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of the network; repeatable."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The key of the weights, in a file that has several.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert published weights to a model folder, for evaluate, predict and export."""
    results = Results(as_json)
    from derain.config import parse_overrides
    from derain.pipelines.export import import_weights

    folder, what = import_weights(weights, out, network, parse_overrides(overrides or ()), key)
    results.show({"folder": str(folder), "weights": what}, f"wrote {folder}: {what}")


def _height_width(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--size {size}: expected WIDTHxHEIGHT, for example 256x192.")
    return int(height), int(width)
