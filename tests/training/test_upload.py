"""Checkpoints are uploaded completely, whatever fails in between, and can be fetched again."""

import shutil
from pathlib import Path

from derain.training import checkpoint
from derain.training.ledger import LEDGER
from derain.training.upload import Remote, Uploader
from tests.processes import wait_for
from tests.storage.faulty_store import BUCKET, FaultyStore
from tests.tiny import config, run
from tests.training.small_checkpoints import save


def upload(uploader: Uploader, run: Path, steps: list[int]) -> None:
    for step in steps:
        uploader.put(save(run, step), pinned={1}, keep=2)
        wait_for(lambda: not uploader.pending_steps(), 60)


def test_the_newest_and_the_pinned_are_uploaded_and_fetched(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"), "run")
    uploader = Uploader(remote)
    upload(uploader, tmp_path / "run", [1, 2, 3, 4])
    assert uploader.close()
    assert remote.steps() == [1, 3, 4]
    shutil.rmtree(tmp_path / "run")
    fetched = remote.fetch(tmp_path / "run")
    assert fetched is not None
    assert fetched.state.step == 4
    assert checkpoint.load(fetched.folder) == fetched
    assert (tmp_path / "run" / checkpoint.CONFIG).is_file()


def test_a_run_resumed_from_an_object_store_equals_an_unbroken_one(
    tmp_path: Path, object_store: FaultyStore
) -> None:
    """The third of nine evaluations is the best; the folder is lost after the sixth step."""
    object_store.errors = object_store.cuts = 0.05
    remote = Remote(f"s3://{BUCKET}/runs", "run", extra_files=(LEDGER,))
    run_config = config(
        tmp_path / "here", eval_every_steps=1, keep_checkpoints=2, use_checkpoint="best"
    )
    scores = iter((1, 2, 9, 4, 5, 6, 7, 8, 3))
    uploader = Uploader(remote)
    run(run_config, until=6, validate=lambda _: {"psnr_y": next(scores)}, uploader=uploader)
    assert uploader.close()
    uploaded = set(remote.steps())  # the sixth may have replaced the fifth in the queue
    assert {3, 6} <= uploaded
    assert len(uploaded) <= 3
    shutil.rmtree(run_config.folder)
    fetched = remote.fetch(run_config.folder)
    assert fetched is not None
    assert fetched.state.step == 6
    ended = run(run_config, validate=lambda _: {"psnr_y": next(scores)})
    assert (ended.resumed_from_step, ended.checkpoint.name) == (6, "step-00000003")

    unbroken = config(tmp_path / "unbroken")
    run(unbroken)
    one, other = checkpoint.newest(run_config.folder), checkpoint.newest(unbroken.folder)
    assert one is not None
    assert other is not None
    assert one.weights_sha256() == other.weights_sha256()
    assert (run_config.folder / LEDGER).read_text() == (unbroken.folder / LEDGER).read_text()


def test_the_best_is_uploaded_although_newer_ones_replaced_it_in_the_queue(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"), "run")
    (tmp_path / "remote").write_text("in the way of the folder")
    uploader = Uploader(remote)
    for step in (1, 2, 3):
        uploader.put(save(tmp_path / "run", step), pinned={1}, keep=1)
    assert uploader.pending_steps() >= {1, 3}
    (tmp_path / "remote").unlink()
    assert uploader.close()
    assert remote.steps() == [1, 3]


def test_remote_checkpoints_newer_than_the_uploaded_one_are_removed(tmp_path: Path) -> None:
    """Their steps were lost with a folder, or found damaged, and are trained again."""
    remote = Remote(str(tmp_path / "remote"), "run")
    for step in (4, 8):
        remote.put(save(tmp_path / "before", step))
    uploader = Uploader(remote)
    uploader.put(save(tmp_path / "run", 5), pinned=set(), keep=1)
    assert uploader.close()
    assert remote.steps() == [5]


def test_a_damaged_or_incomplete_checkpoint_is_skipped(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"), "run")
    for step in (1, 2, 3):
        remote.put(save(tmp_path / "run", step))
    place = tmp_path / "remote/run/checkpoints"
    (place / "step-00000003/state.json").unlink()
    (place / "step-00000002/model.safetensors").write_bytes(b"torn")
    fetched = remote.fetch(tmp_path / "again")
    assert fetched is not None
    assert fetched.state.step == 1


def test_a_failed_upload_is_retried_and_a_newer_one_goes_first(tmp_path: Path) -> None:
    remote = Remote(str(tmp_path / "remote"), "run")
    (tmp_path / "remote").write_text("in the way of the folder")
    uploader = Uploader(remote)
    for step in (1, 2, 3):
        uploader.put(save(tmp_path / "run", step), pinned=set(), keep=5)
    assert not uploader.close(timeout_s=0.2)
    (tmp_path / "remote").unlink()
    uploader = Uploader(remote)
    upload(uploader, tmp_path / "run", [4])
    assert uploader.close()
    assert remote.steps()[-1] == 4


def test_fetching_from_an_empty_location_returns_none(tmp_path: Path) -> None:
    assert Remote(str(tmp_path), "run").fetch(tmp_path / "run") is None
