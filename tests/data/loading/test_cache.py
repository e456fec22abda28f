"""The cache of a node is shared by users, and refused by disks with one message."""

import errno
import fcntl
import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks._small import write_dataset
from derain.data.loading import pixels
from derain.data.loading.cache import MappedPixels, Pixels, TarPixels, open_pixels
from derain.data.prepared.manifest import Prepared, open_prepared
from derain.errors import StorageError
from tests.folders import PairedFolder
from tests.users import give_away, unprivileged


@pytest.fixture
def dataset(paired_folder: PairedFolder, tmp_path: Path) -> Prepared:
    return write_dataset(paired_folder(5), tmp_path / "prepared")


@pytest.fixture
def others(tmp_path: Path, dataset: Prepared) -> Iterator[Path]:
    """A folder of caches that another user made for all, with a cache of `dataset`."""
    caches = tmp_path / "caches"
    open_pixels(dataset, folder=caches, budget_gib=1)
    give_away(caches)
    yield caches
    caches.chmod(0o755)


def same(pixels: Pixels, dataset: Prepared) -> bool:
    return all(np.array_equal(pixels[at], TarPixels(dataset)[at]) for at in range(len(dataset)))


@pytest.mark.parametrize("mode", [0o1777, 0o755, 0o555])
def test_a_cache_of_another_user_is_used(others: Path, dataset: Prepared, mode: int) -> None:
    for file in others.iterdir():
        file.chmod(0o444)
    others.chmod(mode)
    before = {path.name: path.stat().st_mtime_ns for path in others.iterdir()}

    with unprivileged():
        pixels = open_pixels(dataset, folder=others, budget_gib=1)

    assert isinstance(pixels, MappedPixels)
    assert same(pixels, dataset)
    assert before.keys() == {path.name for path in others.iterdir()}


@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_lock_files_and_leftovers_of_another_user_lock_nobody_out(
    others: Path, dataset: Prepared, mode: int
) -> None:
    """Not even those of the same dataset, whose cache the other user's killed process began."""
    (made,) = others.glob("*.rgb")
    made.rename(others / f"{made.name}.tmp4711")
    for file in others.iterdir():
        file.chmod(mode)
    others.chmod(0o1777)

    with unprivileged():
        pixels = open_pixels(dataset, folder=others, budget_gib=1)

    assert isinstance(pixels, MappedPixels)
    assert same(pixels, dataset)


def test_caches_of_another_user_that_cannot_be_removed_count(
    others: Path, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    others.chmod(0o1777 if os.geteuid() == 0 else 0o555)
    more = write_dataset(paired_folder(6, name="more"), tmp_path / "more-prepared")
    budget = 7 * 2 * 40 * 32 * 3 / 2**30

    with unprivileged():
        if os.geteuid() == 0:
            assert isinstance(open_pixels(more, folder=others, budget_gib=budget), TarPixels)

    assert len(list(others.glob("*.rgb"))) == 1


def test_lock_files_serve_users_with_any_umask(dataset: Prepared, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    finally:
        os.umask(before)

    assert [oct(path.stat().st_mode & 0o777) for path in (tmp_path / "c").glob("*.lock")] == [
        "0o666",
        "0o666",
    ]


def test_a_folder_that_cannot_be_written_is_one_message(
    others: Path, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    others.chmod(0o555)
    more = write_dataset(paired_folder(6, name="more"), tmp_path / "more-prepared")
    message = r"caches: no cache can be .* Permission denied.*data\.cache_dir or DERAIN_CACHE_DIR"

    with unprivileged(), pytest.raises(StorageError, match=message):
        open_pixels(more, folder=others, budget_gib=1)
    with unprivileged(), pytest.raises(StorageError, match=message.replace("caches:", "below:")):
        open_pixels(more, folder=others / "new" / "below", budget_gib=1)


def test_a_cache_that_may_not_be_read_is_one_message(others: Path, dataset: Prepared) -> None:
    for file in others.glob("*.rgb"):
        file.chmod(0)

    with (
        unprivileged(),
        pytest.raises(StorageError, match=r"\.rgb: Permission denied.*DERAIN_CACHE_DIR"),
    ):
        open_pixels(dataset, folder=others, budget_gib=1)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_a_cache_is_built_and_used_and_none_is_removed(
    dataset: Prepared,
    paired_folder: PairedFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    more = write_dataset(paired_folder(6, name="more"), tmp_path / "more-prepared")
    budget = 7 * 2 * 40 * 32 * 3 / 2**30

    for _ in range(2):
        pixels = open_pixels(dataset, folder=tmp_path / "c", budget_gib=budget)
        assert isinstance(pixels, MappedPixels)
        assert same(pixels, dataset)
    assert isinstance(open_pixels(more, folder=tmp_path / "c", budget_gib=budget), TarPixels)
    assert len(list((tmp_path / "c").glob("*.rgb"))) == 1


def test_a_file_system_that_cannot_map_files_is_one_message(
    dataset: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(np, "memmap", refuse)

    with pytest.raises(StorageError, match=r"cannot be mapped into memory.*DERAIN_CACHE_DIR"):
        open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)


def test_a_cache_that_is_removed_at_that_moment_is_built_again(
    dataset: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may remove it after it was found and before it is locked."""
    open_pixels(dataset, folder=tmp_path / "c", budget_gib=1)
    lock = pixels.lock_shared

    def remove_first(_: object) -> None:
        monkeypatch.setattr(pixels, "lock_shared", lock)
        for path in (tmp_path / "c").glob("*.rgb"):
            path.unlink()

    monkeypatch.setattr(pixels, "lock_shared", remove_first)

    assert same(open_pixels(dataset, folder=tmp_path / "c", budget_gib=1), dataset)
    assert len(list((tmp_path / "c").glob("*.rgb"))) == 1


def test_a_file_that_is_listed_and_then_gone_does_not_keep_a_cache_from_being_built(
    dataset: Prepared, tmp_path: Path
) -> None:
    """Another process may remove or rename it while room is made: a link to nothing is like it."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c/gone.rgb").symlink_to(tmp_path / "nowhere")

    assert same(open_pixels(dataset, folder=tmp_path / "c", budget_gib=1), dataset)


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("budget_gib", [0.0, 1.0])
def test_files_that_nobody_reads_any_more_are_closed(
    paired_folder: PairedFolder, tmp_path: Path, at_once: bool, budget_gib: float
) -> None:
    """`PYTHONWARNINGS=error` prints a warning for each that Python itself has to close."""
    folder = write_dataset(paired_folder(3), tmp_path / "own").folder
    gc.collect()  # what other tests left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            options = {"folder": tmp_path / "c", "budget_gib": budget_gib, "at_once": at_once}
            assert len([*open_pixels(open_prepared(folder), **options)]) == 3  # type: ignore[arg-type]
        gc.collect()
    assert [str(warning.message) for warning in caught] == []
