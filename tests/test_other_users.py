"""Verbs of other users and on other disks: each ends in one message, or does its work."""

import errno
import fcntl
import logging
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks._small import NETWORK, write_dataset
from derain import models
from derain.cli import app
from derain.inference.predictor import save_model_folder
from tests.folders import write_pairs
from tests.processes import Done
from tests.users import give_away, unprivileged

Call = Callable[..., Done]

MODEL_READERS = (
    ("predict", "model", "source/rain", "--out", "out"),
    ("evaluate", "model", "prepared"),
    ("export", "model", "out"),
)
DATA_READERS = (
    ("evaluate", "model", "prepared"),
    ("verify", "prepared"),
    ("leaks", "prepared", "prepared"),
)
WRITERS = (
    ("synthesize", "out", "--count", "1", "--size-px", "32"),
    ("prepare", "paired", "source", "out"),
    ("predict", "model", "source/rain", "--out", "out"),
    ("evaluate", "model", "prepared", "--report", "out.md"),
    ("export", "model", "out"),
    ("export", "model", "out.onnx", "--format", "onnx"),
    ("import", "model/model.safetensors", "out", "--network", "fclip_unet"),
    ("leaks", "prepared", "prepared", "--report", "out"),
    ("train", "train.yaml"),
    ("sweep", "sweep.yaml"),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a source, a prepared dataset, a model and configs."""
    folder = tmp_path / "place"
    folder.mkdir()
    write_dataset(write_pairs(folder / "source", 3, width=64, height=64), folder / "prepared")
    options = {key: value for key, value in NETWORK.items() if key != "name"}
    save_model_folder(
        models.build("fclip_unet", **options), folder / "model", "fclip_unet", options
    )
    tree = {
        "name": "run", "model": NETWORK, "train": {"steps": 1, "crop_px": 16, "batch_size": 2},
        "loss": {"perceptual": "none"}, "data": {"train": "prepared", "validation": "prepared"},
    }  # fmt: skip
    (folder / "train.yaml").write_text(yaml.safe_dump(tree))
    swept = {**tree, "sweep": {"space": {"train.lr": {"grid": {"a": 0.1, "b": 0.2}}}}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(swept))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Runs a command in this process; it must end in at most one message, and no traceback."""
    logger = logging.getLogger("derain")
    handlers, level = logger.handlers, logger.level

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["derainctl", *arguments])
        capfd.readouterr()
        stdout = os.dup(1)  # a command redirects it
        try:
            with pytest.raises(SystemExit) as ended:
                app.main()
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        done = Done(int(ended.value.code or 0), *capfd.readouterr())
        assert "Traceback" not in done.stderr
        assert done.stderr.count("derainctl: ") == (done.returncode != 0), done.stderr
        return done

    yield run
    logger.handlers = handlers
    logger.setLevel(level)


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def name_of(arguments: tuple[str, ...]) -> str:
    return "-".join(re.findall(r"\w+", f"{arguments[0]} {arguments[-1]}"))


@pytest.mark.parametrize("arguments", WRITERS, ids=name_of)
def test_a_folder_without_permission_is_named_before_the_work(
    place: Path, call: Call, arguments: tuple[str, ...]
) -> None:
    give_away(place)
    place.chmod(0o555)
    before = contents(place)

    with unprivileged():
        done = call(*arguments)

    assert done.returncode in (1, 2), done.stderr
    assert "ermission" in done.stderr
    assert str(place) in done.stderr
    assert "ray: " not in done.stderr
    assert contents(place) == before
    place.chmod(0o755)


@pytest.mark.parametrize("arguments", MODEL_READERS, ids=name_of)
def test_weights_that_may_not_be_read_are_not_called_damaged(
    place: Path, call: Call, arguments: tuple[str, ...]
) -> None:
    give_away(place / "model")
    (place / "model" / "model.safetensors").chmod(0)

    with unprivileged():
        done = call(*arguments)

    assert "model/model.safetensors: Permission denied" in done.stderr
    assert "damaged" not in done.stderr


@pytest.mark.parametrize("arguments", DATA_READERS, ids=name_of)
def test_data_that_may_not_be_read_are_named(
    place: Path, call: Call, arguments: tuple[str, ...]
) -> None:
    give_away(place / "prepared")
    (place / "prepared" / "manifest.json").chmod(0)

    with unprivileged():
        done = call(*arguments)

    assert done.returncode in (1, 2)
    assert "manifest.json" in done.stderr
    assert "Permission denied" in done.stderr


FILES = {"predict": "", "evaluate": "cache", "export": "model.safetensors"}
"""What a message names: the file if the system gives its name."""


@pytest.mark.parametrize(
    "arguments", [item for item in WRITERS if item[0] in FILES and "onnx" not in item], ids=name_of
)
def test_a_full_disk_is_one_message_with_the_file(
    place: Path, call: Call, arguments: tuple[str, ...]
) -> None:
    """A limit on the size of files stands for the disk: anybody may set it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        done = call(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert FILES[arguments[0]] in done.stderr
    assert not [*place.glob("out/*.png"), *place.glob("out/network.json")]


def test_without_a_home_folder_verbs_work_or_say_what_to_set(
    place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "DERAIN_CACHE_DIR", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)  # which has no name

    assert "DERAIN_CACHE_DIR" in call("evaluate", "model", "prepared").stderr
    assert call("predict", "model", "source/rain", "--out", "out").returncode == 0
    assert call("models").returncode == call("leaks", "prepared", "prepared").returncode == 0
    monkeypatch.setenv("DERAIN_CACHE_DIR", str(place / "cache"))
    assert call("evaluate", "model", "prepared").returncode == 0


def test_without_locks_verbs_work_and_say_so(
    place: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setenv("DERAIN_CACHE_DIR", str(place / "cache"))

    done = call("evaluate", "model", "prepared")

    assert done.returncode == 0
    assert "cache: this file system has no locks" in done.stderr


@pytest.mark.soak
def test_ray_starts_with_64_mb_of_shared_memory_no_home_and_a_long_tmpdir(place: Path) -> None:
    """In a mount namespace; any user may make one."""
    long = place / ("x" * 80)
    long.mkdir()
    command = (
        "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec env -u HOME "
        f'"{sys.executable}" -c "from derain.cli.app import main; main()" '
        "prepare paired source out"
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "bash", "-c", command],
        env={**os.environ, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "3 pairs, 1 shard" in done.stdout
    assert "Traceback" not in done.stderr
