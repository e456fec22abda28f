"""The examples of docs/guides/plugins.md on the command line: two minutes and more, in `make soak`.

A dataset in a layout of one's own is prepared, a run of two workers trains on it with all other
plug-ins, is continued, registered and scored, and a sweep compares optimisers. Where the module is
gone, the same commands end with one message and exit code 2.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from derain.tracking import registry
from tests.folders import noise_image
from tests.repository import ROOT

PAGE = (ROOT / "docs/guides/plugins.md").read_text(encoding="utf-8")
PAIRS = 12


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def derainctl(folder: Path, *arguments: str, code: int = 0, python: str = "python") -> Any:
    """What the command prints with --json; stderr if it is to fail."""
    own = os.pathsep.join([str(folder / python), *filter(None, [os.environ.get("PYTHONPATH")])])
    uri = f"sqlite:///{folder}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-m", "derain.cli", *arguments, "--json"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": own, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def write_config(folder: Path) -> None:
    (chosen,) = (yaml.safe_load(text) for text in blocks("yaml"))
    chosen["data"] |= {"train": "train", "validation": "test", "loader_processes": 1}
    chosen["train"] |= {
        "steps": 4, "batch_size": 4, "crop_px": 16, "device": "cpu", "num_workers": 2,
        "checkpoint_every_steps": 2,
    }  # fmt: skip
    optimizers = {"own": chosen["train"]["optimizer"], "adam": "adam"}
    space = {"train.optimizer": {"grid": optimizers}}
    sweep = {"space": space, "concurrent": 1}
    tree = {"name": "own", **chosen, "sweep": sweep}
    (folder / "own.yaml").write_text(yaml.dump(tree, sort_keys=False))


def test_the_examples_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "own_parts.py").write_text("\n\n".join(blocks("python")))
    (tmp_path / "source").mkdir()
    for number in range(2 * PAIRS):
        image = noise_image(number, width=48, height=40)
        image.save(tmp_path / "source" / f"{number:03d}.png")
    write_config(tmp_path)
    layout = ("prepare", "own_parts:Interleaved", "source")
    for split in ("train", "test"):
        done = derainctl(tmp_path, *layout, split, "--split", split)
        assert (done["pairs"], done["quarantined"]) == (PAIRS // 2, [])

    first = derainctl(tmp_path, "train", "own.yaml", "--set", "sweep=null")
    assert first["steps"] == 4
    longer = derainctl(tmp_path, "train", "own.yaml", "--resume", "own", "--set", "train.steps=6")
    assert (longer["resumed_from_step"], longer["steps"]) == (4, 6)
    made = derainctl(tmp_path, "register", "runs/own", "--name", "own", "--trust")
    metric = ("--metric", "own_parts:MeanError", "--workers", "2")
    scored = derainctl(tmp_path, "evaluate", "models:/own/1", "test", *metric, "--trust")
    (item,) = scored["datasets"]
    assert item["by_protocol"]["own_parts:MeanError"]["metrics"]["MeanError"] > 0
    (version,) = registry.models(f"sqlite:///{tmp_path}/mlflow.db")
    assert made["version"] == version.version
    assert len([tag for tag in version.tags if tag.startswith("plugin.")]) == 6

    swept = derainctl(
        tmp_path, "sweep", "own.yaml", "--set", "name=swept", "--set", "train.num_workers=1"
    )
    assert [trial["status"] for trial in swept["trials"]] == ["finished"] * 2

    for command in (
        (*layout, "other"),
        ("train", "own.yaml", "--set", "name=gone"),
        ("sweep", "own.yaml", "--set", "name=gone"),
        ("evaluate", "models:/own/1", "test", *metric, "--trust"),
    ):
        refused = derainctl(tmp_path, *command, code=2, python="nothing")
        assert refused["error"]["message"].count("cannot be imported") >= 1, refused
        assert not (tmp_path / "runs" / "gone").exists()
