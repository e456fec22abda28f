"""Checkpoints reach the other place whole, whatever fails on the way, and come back."""

import shutil
import time
from pathlib import Path

from derain import checkpoint
from derain.upload import Remote, Uploader
from tests.test_checkpoint import save


def uploaded(uploader: Uploader, run: Path, steps: list[int]) -> None:
    for step in steps:
        uploader.put(save(run, step), spared={1}, keep=2)
        deadline = time.monotonic() + 60
        while uploader.steps() and time.monotonic() < deadline:
            time.sleep(0.01)


def test_the_newest_and_the_spared_are_there_and_come_back(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"), "run")
    uploader = Uploader(remote)
    uploaded(uploader, tmp_path / "run", [1, 2, 3, 4])
    assert uploader.close()
    assert remote.steps() == [1, 3, 4]
    shutil.rmtree(tmp_path / "run")
    fetched = remote.fetch(tmp_path / "run")
    assert fetched is not None
    assert fetched.state.step == 4
    assert checkpoint.load(fetched.folder) == fetched
    assert (tmp_path / "run" / checkpoint.CONFIG).is_file()


def test_a_damaged_or_unfinished_one_is_passed_over(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"), "run")
    for step in (1, 2, 3):
        remote.put(save(tmp_path / "run", step))
    place = tmp_path / "remote/run/checkpoints"
    (place / "step-00000003/state.json").unlink()
    (place / "step-00000002/model.safetensors").write_bytes(b"torn")
    fetched = remote.fetch(tmp_path / "again")
    assert fetched is not None
    assert fetched.state.step == 1


def test_what_cannot_be_written_is_tried_again_and_a_newer_one_goes_first(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"), "run")
    (tmp_path / "remote").write_text("in the way of the folder")
    uploader = Uploader(remote)
    for step in (1, 2, 3):
        uploader.put(save(tmp_path / "run", step), spared=set(), keep=5)
    assert not uploader.close(timeout_s=0.2)
    (tmp_path / "remote").unlink()
    uploader = Uploader(remote)
    uploaded(uploader, tmp_path / "run", [4])
    assert uploader.close()
    assert remote.steps() == [4]


def test_nothing_there_is_nothing(tmp_path: Path) -> None:
    assert Remote(str(tmp_path), "run").fetch(tmp_path / "run") is None
