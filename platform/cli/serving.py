"""The command that serves models over HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer

from derain.cli import complete
from derain.cli.options import Device, Trust
from derain.errors import UsageError

KEY_VARIABLE = "DERAIN_API_KEY"


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
    replicas: Annotated[int, typer.Option(min=1, help="Processes with each network.")] = 1,
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
        replicas=replicas,
        device=device,
        trust=trust,
        key=key,
        limits=limits,
    )


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
