"""The command line: exit codes, one message on stderr, one JSON document on stdout."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from PIL import Image
from typer.testing import CliRunner

from benchmarks._small import NETWORK, write_dataset
from derain.cli import app
from derain.cli.inference import _replicas
from derain.errors import ConfigError, UsageError
from derain.pipelines.leaks.compare import DISTANCE
from derain.pipelines.serve.deployment import Replicas
from tests.cli.conftest import Derainctl
from tests.processes import Done, wait_for

VERBS = (
    "init",
    "config",
    "synthesize",
    "datasets",
    "prepare",
    "verify",
    "leaks",
    "train",
    "sync",
    "sweep",
    "evaluate",
    "leaderboard",
    "density",
    "predict",
    "serve",
    "import",
    "export",
    "register",
    "promote",
    "demote",
    "models",
    "ui",
    "doctor",
    "watch",
    "submit",
    "logs",
    "stop",
    "status",
)
GROUPS = ("runs", "cache")
"""Commands that have commands of their own."""

SMALL = {
    "name": "small",
    "model": NETWORK,
    "train": {"steps": 4},
    "data": {"synthetic": {"train_pairs": 2, "validation_pairs": 1, "test_pairs": 1}},
}

PairedFolder = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def refused(done: Done, *named: str) -> None:
    """One message that names the problem, nothing on stdout, exit code 2."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("derainctl: ") == 1
    assert "Traceback" not in done.stderr
    for part in named:
        assert part in done.stderr


@pytest.mark.parametrize("verb", VERBS + GROUPS)
def test_every_command_has_help(verb: str) -> None:
    shown = CliRunner().invoke(app.app, [verb, "--help"])
    assert shown.exit_code == 0
    assert f"{verb} [OPTIONS]" in " ".join(shown.output.split())


def test_the_commands_are_exactly_these() -> None:
    named = {command.name or command.callback.__name__ for command in app.app.registered_commands}
    assert named == set(VERBS)
    assert {
        group.name or group.typer_instance.info.name for group in app.app.registered_groups
    } == {*GROUPS}


def test_help_gives_the_default_distance() -> None:
    shown = CliRunner().invoke(app.app, ["leaks", "--help"], env={"COLUMNS": "200"})
    assert f"Default: {DISTANCE}." in " ".join(shown.output.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["unknown"],
        ["train"],
        ["train", "a.yaml", "--unknown"],
        ["synthesize", "out", "--count", "many"],
        ["synthesize", "out", "--count", "0"],
        ["synthesize", "out", "--density", "torrential"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app.app, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "gone.yaml"], "gone.yaml"),
        (["train", "small.yaml", "--set", "train.step=3"], "`train.steps`"),
        (["train", "small.yaml", "--set", "train.steps=many"], "'many'"),
        (["train", "small.yaml", "--set", "train.steps"], "KEY=VALUE"),
        (["train", "small.yaml", "--profile", "huge"], "`huge`"),
        (["sweep", "small.yaml"], "`sweep` section"),
        (["sweep", "--resume", "gone"], "no sweep to resume"),
        (["prepare", "paired", "gone", "out"], "gone"),
        (["prepare", "unknown", ".", "out"], "Known: rain13k"),
        (["prepare", "rain800", ".", "out", "--split", "val"], "train, test"),
        (["prepare", "paired", ".", "out", "--share", "2"], "LOW:HIGH"),
        (["datasets", "unknown"], "Known: rain13k"),
        (["prepare", "paired", ".", "out", "--without", "small.yaml"], "derainctl leaks"),
        (["leaks", "gone", "gone"], "no such prepared dataset"),
        (["evaluate", "gone", "gone"], "gone"),
        (["predict", "gone", "gone.png", "--out", "out"], "gone.png"),
        (["predict", "gone", ".", "--out", "out"], "no image (PNG, JPEG, BMP, WebP or TIFF)"),
        (["predict", "gone", ".", "--out", "small.yaml"], "small.yaml is a file"),
        (["evaluate", "gone", "gone", "--protocol", "psnr"], "'psnr'"),
        (["evaluate", "gone", "gone", "--report", "."], "a folder"),
        (["evaluate", "gone", "gone", "--report", "small.yaml/scores.md"], "small.yaml is a file"),
        (["export", "gone", "small.yaml"], "small.yaml is a file"),
        (["export", "gone", ".", "--format", "onnx"], "a folder"),
        (["export", "gone", "out", "--size", "0x0"], "WIDTHxHEIGHT"),
        (["import", "gone.pth", "small.yaml"], "small.yaml is a file"),
        (["import", "gone.pth", "out", "--network", "nonet"], "expected one of 'fclip_unet'"),
        (["import", "gone.pth", "out", "--network", "prenet", "--set", "widht=8"], "`model.width`"),
        (["leaks", "gone", "gone", "--report", "small.yaml"], "small.yaml is a file"),
        (["register", "gone", "--name", "net"], "gone"),
        (["sync", "runs/gone"], "no such run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("config")
def test_wrong_input_is_one_message(
    derainctl: Derainctl, arguments: list[str], named: str, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    refused(derainctl(*arguments), named)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_device_is_not_replaced(
    derainctl: Derainctl, tmp_path: Path, paired_folder: PairedFolder
) -> None:
    write_dataset(paired_folder(1), tmp_path / "prepared")
    Image.new("RGB", (8, 8)).save(tmp_path / "rain.png")
    (tmp_path / "net.onnx").touch()  # such a file always runs on the CPU
    arguments = ("net.onnx", "--device", "cuda")
    refused(derainctl("predict", *arguments, "rain.png", "--out", "out"), "--device cpu")
    refused(derainctl("evaluate", *arguments[:1], "prepared", *arguments[1:]), "--device cpu")
    assert not (tmp_path / "out").exists()


def test_an_error_in_the_file_names_its_line(derainctl: Derainctl, config: Path) -> None:
    config.write_text(config.read_text().replace("steps:", "stpes:"))
    line = config.read_text().splitlines().index("  stpes: 4") + 1
    refused(derainctl("train", config), f"small.yaml:{line}", "`train.stpes`")


@pytest.mark.parametrize("verb", VERBS)
def test_what_the_machine_refuses_is_one_message_of_every_verb_and_a_bug_is_not(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [PermissionError(errno.EACCES, "Permission denied", "/x"), TypeError("a bug")]
    commands = typer.main.get_command(app.app)
    commands.commands[verb].params = []  # type: ignore[attr-defined]
    commands.commands[verb].callback = lambda: _raise(errors.pop(0))  # type: ignore[attr-defined]

    with pytest.raises(SystemExit, match="1"):
        commands.main([verb])
    stderr = capsys.readouterr().err
    assert stderr.startswith("derainctl: /x: Permission denied. ")
    assert stderr.count("\n") == 1
    with pytest.raises(TypeError, match="a bug"):
        commands.main([verb])


def _raise(error: Exception) -> None:
    raise error


def test_debug_shows_the_traceback(derainctl: Derainctl) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        derainctl("--debug", "train", "gone.yaml")


def test_files_in_an_occupied_folder_are_kept(
    derainctl: Derainctl, tmp_path: Path, config: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    refused(derainctl("synthesize", out, "--count", 1), "out")
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    (run / "thesis.tex").write_text("years of work")
    refused(derainctl("train", config), "small")
    assert [path.name for path in (*out.iterdir(), *run.iterdir())] == ["thesis.tex"] * 2
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_an_unpaired_image_stops_a_strict_prepare(
    derainctl: Derainctl, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    source = paired_folder(1)
    Image.new("RGB", (40, 32)).save(source / "clean" / "alone.png")
    done = derainctl("prepare", "paired", source, "out", "--strict")
    refused(done, "clean/alone.png", "--strict")
    assert not (tmp_path / "out").exists()
    done = derainctl("prepare", "paired", source, "out", "--strict", "--json")
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["path"] == "clean/alone.png"


@pytest.mark.usefixtures("ray_cluster")
def test_a_dry_run_prints_the_resolved_config_and_does_nothing(
    derainctl: Derainctl, config: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    arguments = ["train", config, "--dry-run", "--set", "train.lr=0.5"]
    planned = derainctl(*arguments, "--json")
    assert planned.returncode == 0
    as_json = json.loads(planned.stdout)["config"]
    as_text = yaml.safe_load(derainctl(*arguments).stdout)
    assert as_json == as_text
    assert as_json["train"]["lr"] == 0.5
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("ray_cluster")
def test_a_plan_that_would_stop_is_shown_with_all_reasons(
    derainctl: Derainctl, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/small").touch()
    tree = {**SMALL, "sweep": {"space": {"train.lr": {"grid": [1e-4, 1e-3]}}}}
    config.write_text(yaml.safe_dump(tree))
    done = derainctl("train", config, "--dry-run", "--set", "train.crop_px=24")
    assert done.returncode == 2
    stops = [line for line in done.stdout.splitlines() if "Would stop: " in line]
    assert ["is a file" in stops[0], "train.crop_px" in stops[1]] == [True, True]
    assert yaml.safe_load(done.stdout)["train"]["crop_px"] == 24
    ignored = f"derainctl sweep {config} --set train.crop_px=24"
    assert ignored in done.stderr
    refused(derainctl("train", config, "--price-per-hour", "2"), "--dry-run")


def test_a_profile_needs_a_config_file(derainctl: Derainctl) -> None:
    refused(derainctl("sweep", "--resume", "asha", "--profile", "demo"), "--profile", "that file")


def interrupt(folder: Path, verb: str, tree: dict[str, Any]) -> Done:
    """Start a verb in its folder, and send it Ctrl-C once a run has a checkpoint."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree))
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    process = subprocess.Popen(
        [sys.executable, "-m", "derain.cli", verb, "tiny.yaml", "--json"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: list(folder.glob("runs/**/step-*")), 300, process=process)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return Done(process.returncode, out, errors)


@pytest.mark.soak
@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_ctrl_c_leaves_no_results_that_look_complete(
    tmp_path: Path, tiny: dict[str, Any], verb: str
) -> None:
    endless = {**tiny["train"], "steps": 10**7, "checkpoint_every_steps": 10}
    tree = {**tiny, "train": endless, "register": {"name": "never"}}
    grid = {"train.lr": {"grid": {"slow": 1e-4, "fast": 1e-3}}}
    tree |= {"sweep": {"space": grid}} if verb == "sweep" else {}
    done = interrupt(tmp_path, verb, tree)
    assert done.returncode == 130, done.stderr
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["exit_code"]) == ("StoppedError", 130)
    assert done.stderr.count("derainctl: ") == 1
    assert f"Continue with --resume {tree['name']}" in done.stderr
    assert "Traceback" not in done.stderr
    finished = [path for path in tmp_path.rglob("result.json") if "ray" not in path.parts]
    assert not finished  # Ray Tune writes files of that name too
    assert not list(tmp_path.rglob("sweep.json"))
    assert not list(tmp_path.rglob("report"))
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        runs = store.execute("select name, status from runs").fetchall()
        versions = store.execute("select name from model_versions").fetchall()
    assert {status for _, status in runs} == {"KILLED"}
    assert len(runs) in ((1,) if verb == "train" else (2, 3))  # a trial may not have begun
    assert versions == []


@pytest.mark.parametrize("text", ["0", "2:1", "one", "1:", ":2", "-1"])
def test_a_number_of_replicas_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--replicas"):
        _replicas(text)


def test_replicas_are_a_number_or_a_range() -> None:
    assert _replicas("3") == Replicas(3, 3)
    assert _replicas("1:4") == Replicas(1, 4)
