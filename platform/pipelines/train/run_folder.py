"""The folder of a run: the names of its files, and reserving it for a new run."""

import contextlib
import importlib.metadata
import json
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from derain.config import Config
from derain.errors import OccupiedError, StoppedError, UsageError
from derain.pipelines.train.metrics_file import METRICS_FILE
from derain.storage.atomic import write_text
from derain.storage.files import locate
from derain.storage.output_paths import check_folder
from derain.tracking.outbox import OUTBOX_FOLDER
from derain.training import checkpoint
from derain.training.ledger import LEDGERS
from derain.training.process import interrupt

RESULT = "result.json"
"""Written at the end of a finished run: what `derainctl train --json` prints."""
PAUSED = "paused.json"
"""Written where a trial pauses: the step and the metrics at that step."""
IDENTITY = "mlflow.json"
"""The ID of the MLflow run."""
FAILURE = "failure.json"
"""The expected error that ended a worker."""
COMMANDS = "commands.jsonl"
"""The commands that have trained a run or a sweep, a line for each."""
PROGRAM = "derainctl"
GALLERY = "gallery.png"
UPLOADED = (LEDGERS, METRICS_FILE, IDENTITY)
"""Patterns of the files that are uploaded with every checkpoint."""
_KINDS: Mapping[str, Mapping[str, type]] = {
    RESULT: {"checkpoint": str, "metrics": dict, "steps": int},
    IDENTITY: {"run_id": str},
    FAILURE: {"message": str},
}
"""What a file of this name has at least, and of which type."""
_RESTORE = "Restore the file, or remove it."
LOCKS = (checkpoint.LOCK, checkpoint.COMMAND_LOCK)
"""Files that a command leaves in the folder even if it ended before the run began."""
EARLY = (
    *LOCKS, *UPLOADED, checkpoint.CONFIG, "checkpoints", "ray", OUTBOX_FOLDER, FAILURE, COMMANDS,
    interrupt.STOP_FILE, "stacks-rank*.txt", ".*.tmp", ".derain-*",
)  # fmt: skip
"""Patterns of what a run may have written before its first checkpoint."""


def claim(config: Config) -> None:
    """Reserve the folder of a new run or sweep. Raises what `check_unused` raises."""
    check_unused(config)
    config.folder.mkdir(parents=True, exist_ok=True)


def has_begun(folder: Path) -> bool:
    """Whether there is anything to resume: a checkpoint, or the result of a finished run."""
    return bool(checkpoint.steps(folder)) or (folder / RESULT).is_file()


def check_unused(config: Config) -> None:
    """Check the folder of a new run or sweep, and its place at `train.upload_to`.

    A folder of a run that never came to a checkpoint counts as unused. Raises OccupiedError if
    either is in use; the message says how to continue that run.
    """
    folder, name = config.folder, config.name
    check_folder(folder)
    if (folder / RESULT).is_file():
        raise OccupiedError(
            f"{folder}: holds a finished run. Give another --set name=..., or continue training it "
            f"with --resume {name} --set train.steps=..."
        )
    if checkpoint.steps(folder):
        raise OccupiedError(
            f"{folder}: holds an unfinished run. Continue it with --resume {name}, "
            "or give another --set name=..."
        )
    if (found := foreign(folder)) is not None:
        raise OccupiedError(
            f"{folder}: not empty, and {found} is not of a run. Give another --set name=... or "
            "output_dir."
        )
    if config.train.upload_to is not None:
        _check_unused_remote(locate(config.train.upload_to) / name, name)


def foreign(folder: Path) -> str | None:
    """A name in a folder that no run without a checkpoint has written; None if there is none.

    A config alone may be the user's own: a run has its MLflow run first. So may a checkpoint under
    a name of its own.
    """
    names = _names(folder)
    if checkpoint.CONFIG in names and IDENTITY not in names:
        return checkpoint.CONFIG
    for name in _names(folder / "checkpoints"):
        whole = (folder / "checkpoints" / name / checkpoint.STATE).is_file()
        if not fnmatchcase(name, ".*.tmp") and (whole or not checkpoint.NAME.fullmatch(name)):
            return f"checkpoints/{name}"
    return next((n for n in names if not any(fnmatchcase(n, known) for known in EARLY)), None)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _check_unused_remote(remote: Path, name: str) -> None:
    """Raise OccupiedError for a folder of another run: their checkpoints would be mixed up.

    What an upload left that never came to a whole checkpoint is no run.
    """
    if foreign(remote) is not None:
        raise OccupiedError(
            f"{remote}: train.upload_to already holds a run of this name. Continue that run with "
            f"--resume {name}, or give another --set name=... or train.upload_to."
        )


def clear(folder: Path) -> None:
    """Remove what a run without a checkpoint has left. Its locks stay, as they are held."""
    for path in folder.iterdir():
        if path.name in LOCKS:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def command_line() -> str | None:
    """This process's command as it can be typed again; None if it is not `derainctl`."""
    return shlex.join([PROGRAM, *sys.argv[1:]]) if Path(sys.argv[0]).name == PROGRAM else None


def note_command(folder: Path) -> None:
    """Append this command to COMMANDS: what was typed, where, when (UTC), with which version."""
    line = {
        "command": command_line(),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": str(Path.cwd()),
        "host": socket.gethostname(),
        "version": importlib.metadata.version("derain-platform"),
    }
    with (folder / COMMANDS).open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(json.dumps(line) + "\n")


def read_commands(folder: Path) -> list[dict[str, Any]]:
    """The lines of COMMANDS; empty for runs of earlier versions, which have none."""
    path = folder / COMMANDS
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # a torn line
            command = json.loads(line)
            datetime.fromisoformat(command["began"])
            if isinstance(command["command"], str | None) and isinstance(command["host"], str):
                found.append(command)
    return found


@contextlib.contextmanager
def noting_failure(folder: Path) -> Iterator[None]:
    """Note in FAILURE why the command in the block failed, for `derainctl runs`; not why it was
    asked to stop."""
    try:
        yield
    except StoppedError:
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # of a full disk, which may be the reason
            write_json(folder / FAILURE, {"kind": type(error).__name__, "message": str(error)})
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run.

    Raises UsageError for a damaged one: not JSON, or without what each file of its name has.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: damaged, not JSON ({error}). {_RESTORE}") from None
    kinds = _KINDS.get(path.name, {})
    if not isinstance(tree, dict):
        raise UsageError(
            f"{path}: damaged: expected a JSON object, found {type(tree).__name__}. {_RESTORE}"
        )
    for key, kind in kinds.items():
        if not isinstance(tree.get(key), kind):
            raise UsageError(
                f"{path}: damaged: expected `{key}` ({kind.__name__}), found {tree.get(key)!r}. "
                f"{_RESTORE}"
            )
    return tree


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(tree, indent=2) + "\n", durable=False)
