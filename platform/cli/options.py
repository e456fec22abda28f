"""Options and arguments shared by several commands: one name, one meaning, one help text."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from derain.cli import complete

ConfigFile = Annotated[
    Path,
    typer.Argument(
        help="A YAML file, or the name of a shipped config, such as ldfps.",
        autocompletion=complete.configs,
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        help="models:/NAME@ALIAS, a run, a checkpoint, a model folder or an exported file.",
        autocompletion=complete.models,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
Profile = Annotated[
    str | None,
    typer.Option(
        help="A profile of the config file. Default: the one it names.",
        autocompletion=complete.profiles,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config value; repeatable.",
        autocompletion=complete.keys,
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Load .pt2, TorchScript and user-defined classes; they run code."),
]
Stride = Annotated[
    int | None,
    typer.Option(min=1, help="Exported files: sides must be multiples of this."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="auto uses CUDA if available; cuda fails without it."),
]
Resume = Annotated[
    str | None,
    typer.Option(help="Name of the run or sweep to continue.", autocompletion=complete.runs),
]
Protocol = Annotated[
    list[str] | None,
    typer.Option(
        help="Such as rain13k or prenet; repeatable. Default: rain13k.",
        autocompletion=complete.protocols,
    ),
]
Density = Literal["light", "moderate", "heavy", "mixed"]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Check all that the command checks, print the plan and what would stop it (exit code "
        "2), and do nothing.",
    ),
]
Price = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour",
        min=0,
        help="With --dry-run: what an hour of a GPU costs, or of the machine if it trains on CPUs.",
    ),
]
Layouts = Annotated[
    Path | None, typer.Option(help="A YAML file with datasets of your own, as more rows.")
]


def worker_count(text: str) -> int | None:
    """The value of --workers; None for auto."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"--workers is {text!r}; expected auto or a number from 1.")
    return int(text)
