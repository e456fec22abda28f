"""s3:// and gs:// behind a store that fails: limited retries, then the right bytes or an error."""

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pytest

from benchmarks._small import write_dataset
from derain.data.loading.cache import open_pixels
from derain.data.prepared.manifest import open_prepared
from derain.errors import DataError, StorageError, UsageError
from derain.pipelines.leaks.verb import leaks
from derain.storage import files, remote
from derain.storage.atomic import new_file
from derain.storage.remote import RemotePath
from tests.folders import PairedFolder
from tests.storage.faulty_store import BUCKET, FaultyStore
from tests.storage.gcs_server import gcs_server


@pytest.fixture
def folder(object_store: FaultyStore) -> Path:  # noqa: ARG001
    return files.locate(f"s3://{BUCKET}/folder")


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with gcs_server() as (host, port):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
        remote._store.cache_clear()
        yield files.locate(f"gs://{BUCKET}/folder")
        remote._store.cache_clear()


@pytest.mark.parametrize("store", ["folder", "google"])
def test_the_methods_of_path(store: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(store)
    assert not folder.exists()
    with new_file(folder / "a/b.txt") as file:
        file.write(b"abc" * 1000)
    (folder / "c.txt").write_text("text")
    assert folder.is_dir()
    assert (folder / "c.txt").is_file()
    assert (folder / "a/b.txt").read_bytes() == b"abc" * 1000
    assert (folder / "c.txt").read_text() == "text"
    assert (folder / "c.txt").stat().st_size == 4
    assert sorted(files.walk(folder)) == ["a/b.txt", "c.txt"]
    assert sorted(str(path) for path in folder.iterdir()) == [f"{folder}/a", f"{folder}/c.txt"]
    assert [stat.st_size for stat in files.stats(folder, ["c.txt", "a/b.txt"]) if stat] == [4, 3000]
    (folder / "c.txt").unlink()
    (folder / "c.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"c\.txt"):
        (folder / "c.txt").stat()
    with pytest.raises(FileNotFoundError):
        (folder / "c.txt").read_bytes()


def test_faults_do_not_change_a_byte(object_store: FaultyStore, folder: Path) -> None:
    object_store.errors, object_store.stalls, object_store.cuts, object_store.stall_s = (
        0.1,
        0.1,
        0.1,
        0.1,
    )
    data = bytes(range(256)) * 400
    for number in range(15):
        path = folder / f"{number}.bin"
        path.write_bytes(data[number:])
        assert path.read_bytes() == data[number:]
    assert min(object_store.done[name] for name in ("errors", "stalls", "cuts")) > 0


class Zeros(io.RawIOBase):
    """A file of zeros that notes how much memory Arrow has whenever more of it is read."""

    def __init__(self, size: int) -> None:
        self._size, self._at, self.most = size, 0, 0

    def read(self, size: int = -1) -> bytes:
        self.most = max(self.most, pa.total_allocated_bytes())
        size = min(size, self._size - self._at)
        self._at += size
        return bytes(size)

    def seek(self, offset: int, _whence: int = 0) -> int:
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at


@pytest.mark.usefixtures("object_store")
def test_an_upload_holds_a_part_of_the_file(folder: Path) -> None:
    """It held all of it, waiting for the requests that it had begun."""
    before, file = pa.total_allocated_bytes(), Zeros(160 * 2**20)
    cast(RemotePath, folder / "large").upload(cast(BinaryIO, file))
    assert (folder / "large").stat().st_size == 160 * 2**20
    assert file.most - before < 60 * 2**20


class Broken(Zeros):
    """A file whose second half cannot be read."""

    def read(self, size: int = -1) -> bytes:
        if 2 * self._at >= self._size:
            raise InterruptedError("half of it")
        return super().read(min(size, self._size // 2))


@pytest.mark.parametrize("size", [2**10, 40 * 2**20])
@pytest.mark.parametrize("store", ["folder", "google"])
def test_an_upload_that_breaks_off_leaves_no_half(
    store: str, size: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the file got its name: closing the stream completes the upload."""
    monkeypatch.setattr(remote, "_PAUSE_S", 0.0)
    path = cast(RemotePath, request.getfixturevalue(store) / "half")
    with pytest.raises(StorageError, match="half of it"):
        path.upload(cast(BinaryIO, Broken(size)))
    assert not path.exists()


def test_a_store_that_never_answers_is_named(
    object_store: FaultyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(remote, "REQUESTS", 1)
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=pauses.append))
    object_store.errors = 1.0
    with pytest.raises(StorageError, match=r"s3://rain/folder/a\.bin: .* \(tried 4 times\)"):
        (folder / "a.bin").read_bytes()
    assert object_store.done["errors"] <= 3 * remote.TRIES
    assert len(pauses) == remote.TRIES - 1, "nothing is waited for after the last try"


def test_a_cache_is_filled_from_a_store(
    object_store: FaultyStore, folder: Path, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    local = write_dataset(paired_folder(9), tmp_path / "prepared", shards=3)
    for path in local.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    object_store.errors, object_store.cuts = 0.1, 0.1
    far = open_pixels(open_prepared(folder), folder=tmp_path / "far", budget_gib=1)
    near = open_pixels(local, folder=tmp_path / "near", budget_gib=1)
    assert len(far) == len(near) == 9
    assert all(np.array_equal(far[sample], near[sample]) for sample in range(9))
    assert not list((tmp_path / "far").glob("*.tar")), "fetched shards go when they are decoded"
    found = leaks(folder, local.folder)
    assert [match.exact for match in found.matches] == [True] * 9
    object_store.errors = object_store.cuts = 0.0
    with pytest.raises(UsageError, match="not on this machine"):
        open_pixels(open_prepared(folder), folder=tmp_path / "none", budget_gib=0)


def test_a_damaged_shard_in_a_store_leaves_no_cache(
    folder: Path, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    local = write_dataset(paired_folder(4), tmp_path / "prepared")
    for path in local.folder.iterdir():
        data = path.read_bytes()
        (folder / path.name).write_bytes(data[:-512] if path.name == "shard-000001.tar" else data)
    with pytest.raises(DataError, match=r"shard-000001\.tar: .* expected \d+ bytes"):
        open_pixels(open_prepared(folder), folder=tmp_path / "far", budget_gib=1)
    assert not list((tmp_path / "far").glob("*.rgb*"))


def test_a_cache_is_filled_from_google(
    google: Path, paired_folder: PairedFolder, tmp_path: Path
) -> None:
    local = write_dataset(paired_folder(5), tmp_path / "prepared")
    for path in local.folder.iterdir():
        (google / path.name).write_bytes(path.read_bytes())
    far = open_pixels(open_prepared(google), folder=tmp_path / "far", budget_gib=1)
    near = open_pixels(local, folder=tmp_path / "near", budget_gib=1)
    assert all(np.array_equal(far[sample], near[sample]) for sample in range(5))
