"""A checkpoint is either complete or absent; damage is detected and named."""

import logging
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from derain.errors import DerainError, OccupiedError, WeightsError
from derain.training import checkpoint
from tests.training.small_checkpoints import CONFIG, save


def test_a_saved_checkpoint_can_be_loaded(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    loaded = checkpoint.load(folder)
    assert (loaded.state.step, loaded.state.offset, loaded.state.manifests) == (7, 8, ("abc",))
    assert loaded.config == CONFIG
    assert set(loaded.model()) == {"weight", "bias"}
    assert loaded.optimizer()["state"][0]["step"] == 1
    assert loaded.ema() is None


def test_a_changed_number_in_the_state_is_detected(tmp_path: Path) -> None:
    path = save(tmp_path, 1) / "state.json"
    path.write_text(path.read_text().replace('"offset": 8', '"offset": 9'))
    with pytest.raises(WeightsError, match=r"state\.json is damaged"):
        checkpoint.load(path.parent)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "config.yaml"])
def test_one_flipped_bit_is_detected_and_the_file_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=f"{name} is damaged"):
        checkpoint.load(path.parent)


def test_the_newest_complete_checkpoint_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    (tmp_path / "checkpoints/step-00000003/model.safetensors").unlink()
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    assert newest.state.step == 2
    assert "model.safetensors is missing" in caplog.text


def test_prune_keeps_the_last_and_removes_leftovers_of_killed_writers(tmp_path: Path) -> None:
    for step in (9, 10, 11):
        save(tmp_path, step)
    (tmp_path / "checkpoints/.step-00000012.tmp").mkdir()
    checkpoint.prune(tmp_path, newest=11, keep=2)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-00000010", "step-00000011"]


def test_prune_removes_checkpoints_newer_than_the_one_just_written(tmp_path: Path) -> None:
    """Step 20 was damaged, and the run continued from step 10."""
    for step in (10, 20, 12):
        save(tmp_path, step)
    checkpoint.prune(tmp_path, newest=12, keep=1)
    assert checkpoint.steps(tmp_path) == [12]


def test_a_copy_under_a_different_name_is_left_alone(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    copied = shutil.copytree(
        checkpoint.folder_of(tmp_path, 2), tmp_path / "checkpoints/step-00000002-best"
    )
    newest = checkpoint.newest(tmp_path)
    assert newest is not None
    assert newest.folder.name == "step-00000002"
    checkpoint.prune(tmp_path, newest=2, keep=1)
    assert checkpoint.steps(tmp_path) == [2]
    assert checkpoint.load(copied).state.step == 2


KILLED_WRITERS = """
import os, signal, sys, time
from pathlib import Path
import torch._dynamo  # for the optimiser; once, before the forks: it takes seconds
from tests.training.small_checkpoints import save

for number in range(3):
    first, written = os.pipe()
    writer = os.fork()
    if writer == 0:
        for step in range(1, 10000):
            save(Path(sys.argv[1]), number * 10000 + step, size=400)
            os.write(written, b".")
    os.read(first, 1)
    time.sleep(0.013 * (number + 1))
    os.kill(writer, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGKILL
"""


def test_killed_writers_leave_only_complete_checkpoints(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", KILLED_WRITERS, str(tmp_path)], cwd=root, check=True)
    folders = list((tmp_path / "checkpoints").glob("step-*"))
    assert len(folders) >= 3
    for folder in folders:
        checkpoint.load(folder)


def test_a_full_disk_leaves_the_earlier_checkpoint_intact(tmp_path: Path) -> None:
    save(tmp_path, 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(DerainError, match=r"step 2 cannot be written.*--resume"):
            save(tmp_path, 2, size=400)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert checkpoint.newest(tmp_path) is not None


def test_one_process_at_a_time_writes_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "LOCK_TIMEOUT_S", 0.0)
    with (
        checkpoint.write_lock(tmp_path),
        pytest.raises(OccupiedError, match="another process"),
        checkpoint.write_lock(tmp_path),
    ):
        pass
    with checkpoint.write_lock(tmp_path):
        pass


def test_a_worker_waits_for_the_process_on_a_machine_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may live, and write, for longer than a command waits."""
    monkeypatch.setattr(checkpoint, "LOCK_TIMEOUT_S", 0.0)
    held = threading.Event()

    def write() -> None:
        with checkpoint.write_lock(tmp_path):
            held.set()
            time.sleep(0.5)

    lost = threading.Thread(target=write)
    lost.start()
    held.wait()
    with (
        caplog.at_level(logging.INFO, "derain"),
        checkpoint.write_lock(tmp_path, checkpoint.LOST_TIMEOUT_S),
    ):
        pass
    lost.join()
    assert "waiting until the process that wrote there has ended" in caplog.text


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(marker),)

    torch.save({"state": Payload()}, folder / "optimizer.pt")
    with pytest.raises(WeightsError, match="damaged"):
        checkpoint.load(folder)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpoint.Checkpoint(folder, None, CONFIG).optimizer()  # type: ignore[arg-type]
    assert not marker.exists()
