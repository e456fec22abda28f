"""Options and arguments shared by several commands: one name, one meaning, one help text."""

from pathlib import Path
from typing import Annotated, Literal

import typer

ConfigFile = Annotated[Path, typer.Argument(help="A YAML file, such as configs/ldfps.yaml.")]
Model = Annotated[
    str,
    typer.Argument(help="models:/NAME@ALIAS, checkpoint, model folder or exported file."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout.")]
Profile = Annotated[
    str | None, typer.Option(help="A profile of the config file. Default: the one it names.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config value; repeatable."),
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
