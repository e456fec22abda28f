"""What the machine refuses becomes one message with file, reason and remedy; a bug does not."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
import torch
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from derain.errors import DataError, StorageError, UsageError
from derain.storage.refusals import expected, lasts


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "writable"),
        (errno.EACCES, "permission"),
        (errno.EPERM, "permission"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.ENOENT, "Check the path"),
        (errno.ENOTDIR, "a folder was expected"),
        (errno.EISDIR, "a file was expected"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ESTALE, "network disk"),
        (errno.EIO, "system's log"),
        (errno.ENODEV, "map files"),
        (errno.EBADMSG, "Mend this"),
    ],
)
def test_an_error_of_the_system_names_file_reason_and_remedy(number: int, advice: str) -> None:
    found = expected(OSError(number, os.strerror(number), "/data/a\udcd3.tar"), then="call again.")

    assert isinstance(found, StorageError)
    assert str(found).startswith(f"/data/a\udcd3.tar: {os.strerror(number)}. ")
    assert advice in str(found)
    assert str(found).endswith(", then call again.")


def test_an_error_without_a_file_or_a_number_is_a_message_too() -> None:
    for error in (OSError(errno.ENOSPC, "No space left"), OSError("no number"), OSError()):
        assert str(expected(error)).endswith("then run the same command again.")
    assert "out of memory" in str(expected(MemoryError())).lower()


def test_an_allocation_that_fails_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)

    assert str(expected(raised.value)).startswith("Out of memory")


def test_expected_errors_are_themselves_and_bugs_stay() -> None:
    ours = DataError("a shard is missing")

    assert expected(ours) is ours
    for bug in (TypeError("x"), KeyError("x"), RuntimeError("x"), ValueError("x")):
        bug.__cause__ = OSError(errno.ENOSPC, "No space left")
        assert expected(bug) is None


def rays(name: str, *bases: type, **attributes: object) -> Exception:
    """An exception as Ray raises it, whose text is a traceback."""
    kind = type(name, bases or (Exception,), {"__module__": "ray.exceptions", **attributes})
    return kind("Traceback ...")


def test_the_cause_of_what_ray_raises_is_explained() -> None:
    full = OSError(errno.ENOSPC, "No space left", "/data/x")
    ours = DataError("a shard is missing")

    assert str(expected(rays("RayTaskError", cause=full))).startswith("/data/x: No space left")
    assert expected(rays("RayTaskError(DataError)", DataError, cause=ours)) is ours
    failed = rays("WorkerGroupError", worker_failures={0: rays("RayTaskError", cause=full)})
    assert str(expected(failed)).startswith("/data/x: No space left")
    failed.__cause__, failed.worker_failures = rays("RayTaskError", cause=ours), {}  # type: ignore[attr-defined]
    assert expected(failed) is ours
    assert expected(rays("RayTaskError", cause=TypeError("a bug"))) is None


@pytest.mark.parametrize("wrapped", [False, True])
def test_sqlite_is_explained_also_inside_sqlalchemy(tmp_path: Path, wrapped: bool) -> None:
    missing = tmp_path / "none" / "mlflow.db"
    with pytest.raises((sqlite3.OperationalError, OperationalError)) as raised:
        create_engine(f"sqlite:///{missing}").connect() if wrapped else sqlite3.connect(missing)

    assert str(expected(raised.value)).startswith("sqlite: unable to open database file. ")


def test_a_name_that_is_not_utf_8_is_wrong_input() -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        '{"density": "light", "in/rain\udcd3\udcea.png": 1}'.encode()

    found = expected(raised.value)
    assert isinstance(found, UsageError)
    assert str(found).startswith("'in/rain\\udcd3\\udcea.png': expected a name in UTF-8")
    assert expected(UnicodeEncodeError("ascii", "x", 0, 1, "ordinal not in range")) is None


def test_what_a_restart_would_meet_again() -> None:
    assert lasts(DataError("x"))
    assert lasts(OSError(errno.EROFS, "Read-only file system"))
    passing = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOMEM)
    for error in (*(OSError(number, "x") for number in passing), MemoryError(), OSError("x")):
        assert not lasts(error)
