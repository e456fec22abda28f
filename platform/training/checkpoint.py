"""Saves, loads and finds the checkpoints in a run's folder.

<run>/config.yaml                     resolved
<run>/checkpoints/step-00000200/      one checkpoint; has this name only when complete on disk
    model.safetensors                 without frozen modules, which state.json names
    ema.safetensors                   the moving average of the weights, if the run keeps one
    optimizer.pt                      tensors and numbers only (loads with weights_only=True)
    state.json                        step, position, digests of the other files and of itself
    config.yaml

torch, which takes seconds to import, is imported where tensors are read or written, so that
`derainctl runs` lists folders without it.
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derain.config import Config, load_config
from derain.errors import DerainError, OccupiedError, WeightsError
from derain.storage.atomic import new_folder, remove_leftovers
from derain.storage.locks import LockHeldError, locked

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
STATE = "state.json"
MODEL = "model.safetensors"
EMA = "ema.safetensors"
OPTIMIZER = "optimizer.pt"
LOCK = ".lock"
"""Held by the process that writes into the run's folder."""
COMMAND_LOCK = ".command.lock"
"""Held by the command that trains the run, wherever its workers are."""
LOCK_TIMEOUT_S = 30.0
LOST_TIMEOUT_S = 600.0
"""How long a worker waits for the one whose place it takes: on a machine that is cut off, a process
goes on until Ray there gives up, with Ray's own limits after eight minutes."""
COMMAND_TIMEOUT_S = 1.0
"""Not 0: `derainctl runs` holds the lock for an instant to see whether it is free."""
NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class State:
    """The progress of a run; all of its randomness is a function of the seed and these numbers."""

    step: int
    """Completed steps."""
    epoch: int
    offset: int
    """Samples of the epoch that all ranks together have consumed."""
    seed: int
    config_sha256: str
    manifests: tuple[str, ...]
    """SHA-256 of the manifests of the training datasets."""
    frozen: Mapping[str, str]
    """Frozen modules, which the checkpoint leaves out, and their fingerprints; the loss's too."""
    loss: Mapping[str, float]
    """Loss of the `first` and the `last` step, and the running `average` (see `divergence`)."""
    running_error: Mapping[str, Any] | None = None
    """State of an adaptive loss schedule (`loss_schedule.RunningError`)."""
    best: Mapping[str, float] = field(default_factory=dict)
    """`step` and PSNR (`psnr_y` or `psnr_rgb`) of the best validation; empty before the first."""
    held_out: tuple[str, ...] = ()
    """SHA-256 of the manifests of the validation datasets that `best` was measured on."""
    rollbacks: int = 0
    """Number of rollbacks so far; each halves the learning rate."""
    plugins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The identity of each plug-in by config key (`plugins.identity`)."""
    seconds: float = 0.0
    """Trained for, over all resumes, without what was lost between a checkpoint and a kill."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, state and config."""

    folder: Path
    state: State
    config: Config

    def model(self) -> "dict[str, Tensor]":
        """The trained tensors."""
        from derain.models.tensor_files import read_tensors

        return read_tensors(self.folder / MODEL)

    def ema(self) -> "dict[str, Tensor] | None":
        """The moving average of the trained tensors; None if the run keeps none."""
        from derain.models.tensor_files import read_tensors

        path = self.folder / EMA
        return read_tensors(path) if path.exists() else None

    def optimizer(self) -> dict[str, Any]:
        """The optimiser's state dict."""
        import torch

        return torch.load(self.folder / OPTIMIZER, weights_only=True, map_location="cpu")

    def sha256(self) -> str:
        """Digest of the whole checkpoint: STATE has the digests of all other files."""
        return _sha256(self.folder / STATE)

    def weights_sha256(self) -> str:
        """Digest of the weights for use: the moving average if present, or the model."""
        path = self.folder / EMA
        return _sha256(path if path.exists() else self.folder / MODEL)


def save(
    run: Path,
    config: Config,
    state: State,
    *,
    model: "Mapping[str, Tensor]",
    ema: "Mapping[str, Tensor] | None",
    optimizer: Mapping[str, Any],
) -> Path:
    """Write a checkpoint atomically and return its folder: it is either complete or absent.

    Raises DerainError if it cannot be written, for example because the disk is full.
    """
    import torch

    from derain.models.tensor_files import write_tensors

    final = folder_of(run, state.step)
    try:
        with new_folder(final) as folder:  # replaces a damaged one of the same step
            write_tensors(_contiguous(model), folder / MODEL)
            if ema is not None:
                write_tensors(_contiguous(ema), folder / EMA)
            torch.save(optimizer, folder / OPTIMIZER)
            (folder / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
            _write_state(folder, state)
    except (OSError, RuntimeError) as error:  # torch raises its own
        raise DerainError(
            f"The checkpoint of step {state.step} cannot be written: {error}. Earlier ones are "
            f"intact. Make {run} writable or free some space, then --resume {config.name}."
        ) from error
    return final


def _write_state(folder: Path, state: State) -> None:
    """Write STATE: the state, the digests of the other files, and the digest of all that."""
    digests = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    tree = {**asdict(state), "files": digests}
    text = json.dumps({**tree, "sha256": _digest(tree)}, indent=2, sort_keys=True)
    (folder / STATE).write_text(text + "\n", encoding="utf-8")


def load(folder: str | Path) -> Checkpoint:
    """Open a checkpoint folder and check every file against its digest.

    Raises WeightsError, which names the missing or damaged file, PermissionError for one that may
    not be read: nothing is known of it, so it is not passed over as damaged.
    """
    path = Path(folder)
    try:
        tree = json.loads((path / STATE).read_text(encoding="utf-8"))
        expected, actual = tree.pop("sha256"), _digest(tree)
        files = tree.pop("files")
        tree |= {name: tuple(tree[name]) for name in ("manifests", "held_out")}
        state = State(**tree)
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: not a checkpoint: {STATE} is unusable ({error}).") from None
    if actual != expected:
        raise WeightsError(f"{path}: {STATE} is damaged: its content does not match its sha256.")
    for name, digest in files.items():
        if not (path / name).is_file():
            raise WeightsError(f"{path}: {name} is missing.")
        if _sha256(path / name) != digest:
            raise WeightsError(f"{path}: {name} is damaged: its sha256 should be {digest}.")
    return Checkpoint(path, state, load_config(path / CONFIG))


def newest(run: Path) -> Checkpoint | None:
    """The newest complete checkpoint of a run; damaged ones are skipped and logged."""
    for step in reversed(steps(run)):
        try:
            return load(folder_of(run, step))
        except WeightsError as error:
            log.warning("skipped a damaged checkpoint: %s", error)
    return None


@contextlib.contextmanager
def command_lock(run: Path) -> Iterator[None]:
    """Lock a run for one command: only one command may train a run at a time.

    Raises OccupiedError while another command trains it, or a process of the run still writes.
    """
    run.mkdir(parents=True, exist_ok=True)
    with _exclusive(run, COMMAND_LOCK, COMMAND_TIMEOUT_S):
        with write_lock(run):
            pass  # the workers of a killed command have ended
        yield


@contextlib.contextmanager
def write_lock(run: Path, timeout_s: float | None = None) -> Iterator[None]:
    """Lock a run for one process: only one process at a time may write into its folder.

    The system releases the lock of a process that dies, which may take some seconds. Raises
    OccupiedError after `timeout_s`, default: LOCK_TIMEOUT_S.
    """

    def tell() -> None:
        log.info("%s: waiting until the process that wrote there has ended", run.name)

    with _exclusive(run, LOCK, LOCK_TIMEOUT_S if timeout_s is None else timeout_s, tell):
        yield


@contextlib.contextmanager
def _exclusive(
    run: Path, name: str, timeout_s: float, on_wait: Callable[[], object] | None = None
) -> Iterator[None]:
    try:
        with locked(run / name, waits_s=timeout_s, on_wait=on_wait):
            yield
    except LockHeldError:
        raise OccupiedError(
            f"{run}: another process is training this run. Let it finish, or stop it."
        ) from None


def folder_of(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` steps."""
    return run / "checkpoints" / f"step-{step:08d}"


def steps(run: Path) -> list[int]:
    """The steps of the checkpoints in a run's folder, ascending; some may be damaged.

    Other files and folders, such as a copy under another name, are ignored.
    """
    folder = run / "checkpoints"
    if not folder.is_dir():
        return []
    names = (NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(name[1]) for name in names if name)


def copy(source: Path, run: Path, step: int) -> None:
    """Copy another run's checkpoint of a step into a run, replacing the run's own."""
    with new_folder(folder_of(run, step)) as folder:
        shutil.copytree(folder_of(source, step), folder, dirs_exist_ok=True)


def prune(run: Path, newest: int, keep: int, pinned: Container[int] = ()) -> None:
    """Remove `outdated` checkpoints after that of step `newest` was written.

    Also removes the leftovers of killed writers.
    """
    for step in outdated(steps(run), newest, keep, pinned):
        remove(folder_of(run, step))
    remove_leftovers(run / "checkpoints")


def outdated(
    existing: Sequence[int], newest: int, keep: int, pinned: Container[int] = ()
) -> list[int]:
    """The existing steps except the last `keep` up to `newest` and the `pinned` ones.

    Steps above `newest` were damaged, and the run has continued from an earlier one.
    """
    kept = [step for step in existing if step <= newest][-keep:]
    return [step for step in existing if step not in kept and step not in pinned]


def remove(folder: Path) -> None:
    """Rename a checkpoint before deleting its files: a folder with the name is complete."""
    doomed = folder.with_name(f".{folder.name}.tmp")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _contiguous(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Independent plain tensors: safetensors refuses views that share memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _digest(tree: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
