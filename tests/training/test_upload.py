"""Checkpoints reach the other place whole, whatever fails on the way, and come back."""

import shutil
import time
from pathlib import Path

from derain.training import checkpoint
from derain.training.ledger import LEDGER
from derain.training.upload import Remote, Uploader
from tests.storage.faulty_store import BUCKET, FaultyStore
from tests.tiny import config, run
from tests.training.test_checkpoint import save


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


def test_a_run_goes_on_from_an_object_store_as_if_nothing_had_been(
    tmp_path: Path, object_store: FaultyStore
) -> None:
    """The third of nine evaluations is the best; the folder is lost after the sixth step."""
    object_store.errors = object_store.cuts = 0.05
    remote = Remote(f"s3://{BUCKET}/runs", "run", beside=(LEDGER,))
    wanted = config(
        tmp_path / "here", eval_every_steps=1, keep_checkpoints=2, use_checkpoint="best"
    )
    scores = iter((1, 2, 9, 4, 5, 6, 7, 8, 3))
    uploader = Uploader(remote)
    run(wanted, until=6, validate=lambda _: {"psnr_y": next(scores)}, uploader=uploader)
    assert uploader.close()
    assert {3, 6} <= set(remote.steps()) <= {3, 5, 6}
    shutil.rmtree(wanted.folder)
    fetched = remote.fetch(wanted.folder)
    assert fetched is not None
    assert fetched.state.step == 6
    ended = run(wanted, validate=lambda _: {"psnr_y": next(scores)})
    assert (ended.resumed_from_step, ended.checkpoint.name) == (6, "step-00000003")

    unbroken = config(tmp_path / "unbroken")
    run(unbroken)
    one, other = checkpoint.newest(wanted.folder), checkpoint.newest(unbroken.folder)
    assert one is not None
    assert other is not None
    assert one.weights_sha256() == other.weights_sha256()
    assert (wanted.folder / LEDGER).read_text() == (unbroken.folder / LEDGER).read_text()


def test_the_best_is_there_though_newer_ones_took_its_place_in_the_queue(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"), "run")
    (tmp_path / "remote").write_text("in the way of the folder")
    uploader = Uploader(remote)
    for step in (1, 2, 3):
        uploader.put(save(tmp_path / "run", step), spared={1}, keep=1)
    assert uploader.steps() >= {1, 3}
    (tmp_path / "remote").unlink()
    assert uploader.close()
    assert remote.steps() == [1, 3]


def test_what_is_newer_than_what_is_sent_goes(tmp_path: Path) -> None:
    """Of steps that were lost with a folder, or found damaged, and are done again."""
    remote = Remote(str(tmp_path / "remote"), "run")
    for step in (4, 8):
        remote.put(save(tmp_path / "before", step))
    uploader = Uploader(remote)
    uploader.put(save(tmp_path / "run", 5), spared=set(), keep=1)
    assert uploader.close()
    assert remote.steps() == [5]


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
    assert remote.steps()[-1] == 4


def test_nothing_there_is_nothing(tmp_path: Path) -> None:
    assert Remote(str(tmp_path), "run").fetch(tmp_path / "run") is None
