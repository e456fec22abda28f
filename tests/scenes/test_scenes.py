"""Shell sessions of first-time users, and what they must print.

A scene has lines `$ COMMAND`, each followed by all that the command prints on either stream, and by
`? CODE` if it does not end with 0. In a printed line `...` stands for any text; a line that is
nothing else stands for any number of lines.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.repository import ROOT

SCENES = sorted(Path(__file__).parent.glob("*.txt"))
LONG = sorted((Path(__file__).parent / "soak").glob("*.txt"))
ANY = "..."


@dataclass
class Command:
    line: str
    printed: list[str] = field(default_factory=list)
    code: int = 0


def commands(scene: Path) -> list[Command]:
    found: list[Command] = []
    for line in scene.read_text().splitlines():
        if line.startswith("$ "):
            found.append(Command(line.removeprefix("$ ")))
        elif line.startswith("? "):
            found[-1].code = int(line.removeprefix("? "))
        elif found:
            found[-1].printed.append(line)
    return found


def pattern(lines: list[str]) -> str:
    """A regular expression for what a command must print."""
    parts = [
        r"(?:.*\n)*?" if line == ANY else re.escape(line).replace(re.escape(ANY), ".*") + r"\n"
        for line in lines
    ]
    return "".join(parts)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.stem)
def test_each_command_prints_what_the_scene_says(scene: Path, tmp_path: Path) -> None:
    play(scene, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("scene", LONG, ids=lambda scene: scene.stem)
def test_a_long_scene(scene: Path, tmp_path: Path) -> None:
    play(scene, tmp_path)


def play(scene: Path, folder: Path) -> None:
    """Run the commands of a scene in a folder."""
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "300"}
    own |= {"PYTHONPATH": str(ROOT)}
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | own
    for command in commands(scene):
        done = subprocess.run(
            ["bash", "-c", command.line], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        told = f"$ {command.line}\n{done.stdout}"
        assert done.returncode == command.code, told
        assert re.fullmatch(pattern(command.printed), done.stdout), told
