"""Options that several commands have: one name, one meaning, one help text."""

from pathlib import Path
from typing import Annotated, Literal

import typer

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
