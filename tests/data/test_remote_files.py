"""s3:// through a store that fails: bounded retries, then the right bytes or an error."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from derain.data import files
from derain.errors import StorageError
from tests.data.faulty_store import BUCKET, FaultyStore, faulty_store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    with faulty_store() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(files, "_PAUSE_S", 0.01)
        files._store.cache_clear()
        yield store
        files._store.cache_clear()


@pytest.fixture
def folder(store: FaultyStore) -> Path:  # noqa: ARG001
    return files.located(f"s3://{BUCKET}/folder")


def test_the_methods_of_path(folder: Path) -> None:
    assert not folder.exists()
    with files.new_file(folder / "a/b.txt") as file:
        file.write(b"abc" * 1000)
    (folder / "c.txt").write_text("text")
    assert folder.is_dir()
    assert (folder / "c.txt").is_file()
    assert (folder / "a/b.txt").read_bytes() == b"abc" * 1000
    assert (folder / "c.txt").read_text() == "text"
    assert (folder / "c.txt").stat().st_size == 4
    assert sorted(files.walk(folder)) == ["a/b.txt", "c.txt"]
    assert sorted(str(path) for path in folder.iterdir()) == [f"{folder}/a", f"{folder}/c.txt"]
    assert [stat.st_size for stat in files.stats(folder, ["c.txt", "a/b.txt"])] == [4, 3000]
    (folder / "c.txt").unlink()
    (folder / "c.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=r"c\.txt"):
        (folder / "c.txt").stat()
    with pytest.raises(FileNotFoundError):
        (folder / "c.txt").read_bytes()


def test_faults_do_not_change_a_byte(store: FaultyStore, folder: Path) -> None:
    store.errors, store.stalls, store.cuts, store.stall_s = 0.1, 0.1, 0.1, 0.1
    data = bytes(range(256)) * 400
    for number in range(15):
        path = folder / f"{number}.bin"
        path.write_bytes(data[number:])
        assert path.read_bytes() == data[number:]
    assert min(store.done[name] for name in ("errors", "stalls", "cuts")) > 0


def test_a_store_that_never_answers_is_named(
    store: FaultyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "REQUESTS", 1)
    store.errors = 1.0
    with pytest.raises(StorageError, match=r"s3://rain/folder/a\.bin: .* \(tried 4 times\)"):
        (folder / "a.bin").read_bytes()
    assert store.done["errors"] <= 3 * files.TRIES
