"""A run's folder: save, load and find its checkpoints.

<run>/config.yaml                     resolved
<run>/checkpoints/step-00000200/      one checkpoint; the name appears when all is on disk
    model.safetensors                 what is trained; frozen modules are named in state.json
    ema.safetensors                   its moving average, where the run keeps one
    optimizer.pt                      tensors and numbers only (loads with weights_only=True)
    state.json                        step, position, digests of the other files and of itself
    config.yaml
"""

import contextlib
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from derain.config import Config, load_config
from derain.errors import DerainError, OccupiedError, WeightsError
from derain.storage.atomic import new_folder, remove_leftovers
from derain.storage.locks import LockHeldError, locked

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
STATE = "state.json"
MODEL = "model.safetensors"
EMA = "ema.safetensors"
OPTIMIZER = "optimizer.pt"
LOCK = ".lock"
"""Held by the process that writes the run."""
COMMAND_LOCK = ".command.lock"
"""Held by the command that has the run trained, wherever its workers are."""
LOCK_WAITS_S = 30.0
NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class State:
    """Where a run stands; all of its randomness is a function of the seed and these numbers."""

    step: int
    """Steps that are done."""
    epoch: int
    offset: int
    """Samples of the epoch that are done, over all ranks."""
    seed: int
    config_sha256: str
    manifests: tuple[str, ...]
    """sha256 of the manifests of the training datasets."""
    frozen: Mapping[str, str]
    """Modules that the checkpoint leaves out, the loss's included, and the fingerprint of each."""
    loss: Mapping[str, float]
    """Of the `first` and of the `last` step, and the `average` of the latest (see `guard`)."""
    running_error: Mapping[str, Any] | None = None
    """What an adaptive loss schedule goes by (`schedules.RunningError`)."""
    best: Mapping[str, float] = field(default_factory=dict)
    """`step` and `psnr_y` of the best validation so far; empty before the first."""
    held_out: tuple[str, ...] = ()
    """sha256 of the manifests of the datasets that `best` is of."""
    rollbacks: int = 0
    """How often the run went back to a checkpoint; each time halves the learning rate."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole: its folder, its state and its config."""

    folder: Path
    state: State
    config: Config

    def model(self) -> dict[str, Tensor]:
        """The trained tensors."""
        return load_file(self.folder / MODEL)

    def ema(self) -> dict[str, Tensor] | None:
        """The moving average of the trained tensors, where the run keeps one."""
        path = self.folder / EMA
        return load_file(path) if path.exists() else None

    def optimizer(self) -> dict[str, Any]:
        """The optimiser's state dict."""
        return torch.load(self.folder / OPTIMIZER, weights_only=True, map_location="cpu")

    def sha256(self) -> str:
        """Digest of the whole: the state has those of all other files."""
        return _sha256(self.folder / STATE)

    def weights_sha256(self) -> str:
        """Digest of the weights that are used: the average where there is one."""
        path = self.folder / EMA
        return _sha256(path if path.exists() else self.folder / MODEL)


def save(
    run: Path,
    config: Config,
    state: State,
    *,
    model: Mapping[str, Tensor],
    ema: Mapping[str, Tensor] | None,
    optimizer: Mapping[str, Any],
) -> Path:
    """Write a checkpoint so that its name shows either all of it or nothing; returns its folder.

    Raises DerainError where the disk does not take it.
    """
    final = folder_of(run, state.step)
    try:
        with new_folder(final) as folder:  # a damaged one of the same step goes
            save_file(_contiguous(model), folder / MODEL)
            if ema is not None:
                save_file(_contiguous(ema), folder / EMA)
            torch.save(optimizer, folder / OPTIMIZER)
            (folder / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
            _describe(folder, state)
    except (OSError, RuntimeError, SafetensorError) as error:  # each library has its own
        raise DerainError(
            f"The checkpoint of step {state.step} cannot be written: {error}. Earlier ones are "
            f"whole. Make {run} writable or free some space, then --resume {config.name}."
        ) from error
    return final


def _describe(folder: Path, state: State) -> None:
    """Write the state with the digests of the other files."""
    digests = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    tree = {**asdict(state), "files": digests}
    text = json.dumps({**tree, "sha256": _digest(tree)}, indent=2, sort_keys=True)
    (folder / STATE).write_text(text + "\n", encoding="utf-8")


def load(folder: str | Path) -> Checkpoint:
    """Open a checkpoint folder; every file is compared with its digest.

    Raises WeightsError that names the file that is missing or damaged.
    """
    path = Path(folder)
    try:
        tree = json.loads((path / STATE).read_text(encoding="utf-8"))
        expected, found = tree.pop("sha256"), _digest(tree)
        files = tree.pop("files")
        tree |= {name: tuple(tree[name]) for name in ("manifests", "held_out")}
        state = State(**tree)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: not a checkpoint: {STATE} cannot be used ({error}).") from None
    if found != expected:
        raise WeightsError(f"{path}: {STATE} is damaged: the sha256 in it is not that of the rest.")
    for name, digest in files.items():
        if not (path / name).is_file():
            raise WeightsError(f"{path}: {name} is missing.")
        if _sha256(path / name) != digest:
            raise WeightsError(f"{path}: {name} is damaged: its sha256 is not {digest}.")
    return Checkpoint(path, state, load_config(path / CONFIG))


def newest(run: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run; damaged ones are passed over and logged."""
    for step in reversed(steps(run)):
        try:
            return load(folder_of(run, step))
        except WeightsError as error:
            log.warning("checkpoint passed over: %s", error)
    return None


@contextlib.contextmanager
def commanding(run: Path) -> Iterator[None]:
    """Only one command at a time has a run trained; another one touches nothing.

    Raises OccupiedError while another command does, or a process of the run still writes.
    """
    run.mkdir(parents=True, exist_ok=True)
    with _alone(run, COMMAND_LOCK, waits_s=0.0):
        with writing(run):
            pass  # what a killed command left has ended
        yield


@contextlib.contextmanager
def writing(run: Path) -> Iterator[None]:
    """Only one process at a time writes a run; the system lets go for one that dies.

    A process that dies may need some seconds for it. Raises OccupiedError after that.
    """
    with _alone(run, LOCK, LOCK_WAITS_S):
        yield


@contextlib.contextmanager
def _alone(run: Path, name: str, waits_s: float) -> Iterator[None]:
    try:
        with locked(run / name, waits_s=waits_s):
            yield
    except LockHeldError:
        raise OccupiedError(
            f"{run}: another process trains this run. Let it finish, or end it."
        ) from None


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def steps(run: Path) -> list[int]:
    """The steps of the checkpoints that a run's folder names, ascending.

    What else lies beside them, such as a copy under another name, is not the run's.
    """
    place = run / "checkpoints"
    named = [NAME.fullmatch(path.name) for path in place.iterdir()] if place.is_dir() else []
    return sorted(int(name[1]) for name in named if name)


def copy(source: Path, run: Path, step: int) -> None:
    """Give a run another run's checkpoint of a step, in the place of its own."""
    with new_folder(folder_of(run, step)) as folder:
        shutil.copytree(folder_of(source, step), folder, dirs_exist_ok=True)


def prune(run: Path, newest: int, keep: int, spared: Container[int] = ()) -> None:
    """Remove what is outdated once the checkpoint of step `newest` is written.

    What killed writers left goes, too.
    """
    for step in outdated(steps(run), newest, keep, spared):
        _remove(folder_of(run, step))
    remove_leftovers(run / "checkpoints")


def outdated(
    there: Sequence[int], newest: int, keep: int, spared: Container[int] = ()
) -> list[int]:
    """Of the steps that have checkpoints all but the last `keep` up to `newest`, and the `spared`.

    What is newer than the newest is of a lineage that the run has left: it was damaged.
    """
    kept = [step for step in there if step <= newest][-keep:]
    return [step for step in there if step not in kept and step not in spared]


def _remove(folder: Path) -> None:
    """Take a checkpoint's name away before its files: what is named is whole."""
    doomed = folder.with_name(f".{folder.name}.tmp")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Independent plain tensors: safetensors refuses views that share memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _digest(tree: Mapping[str, Any]) -> str:
    """Of a JSON object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
