"""The checkpoints of a run: which there are, what each is for, and which may go."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain.errors import UsageError
from derain.pipelines.train.run_folder import RESULT, read_json
from derain.training import checkpoint
from derain.tune.runs.run_state import read_or_none


@dataclass(frozen=True)
class Saved:
    """One checkpoint of a run."""

    step: int
    folder: Path
    bytes: int
    uses: tuple[str, ...]
    """Of `chosen` (the run's result), `best` (largest PSNR while training), `last`; empty for an
    older one."""


def checkpoints(run: Path) -> list[Saved]:
    """The checkpoints of a run by step; contents are not checked, as that reads all their bytes."""
    steps = checkpoint.steps(run)
    states = {step: _state(run, step) for step in steps}
    whole = [step for step in steps if states[step] is not None]
    last = whole[-1] if whole else None
    kept = (states[last] or {}).get("best") if last is not None else None
    best = kept.get("step") if isinstance(kept, dict) else None
    best = best if isinstance(best, int | float) else None
    chosen = _chosen(run)
    return [
        Saved(
            step,
            checkpoint.folder_of(run, step),
            size_of(checkpoint.folder_of(run, step)),
            tuple(
                use
                for use, its in (("chosen", chosen), ("best", best), ("last", last))
                if its is not None and int(its) == step
            ),
        )
        for step in steps
    ]


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; 0 for what has gone meanwhile."""
    return sum(_size(file) for file in _files(path))


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir() and not path.is_symlink():
        for inside in path.rglob("*"):
            if not inside.is_dir() or inside.is_symlink():
                yield inside
    else:
        yield path


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _chosen(run: Path) -> int | None:
    """The step of the checkpoint that the run's result names."""
    result = read_or_none(run / RESULT)
    name = checkpoint.NAME.fullmatch(Path(result["checkpoint"]).name) if result else None
    return int(name[1]) if name else None


def _state(run: Path, step: int) -> dict[str, Any] | None:
    try:
        state = checkpoint.folder_of(run, step) / checkpoint.STATE
        return read_json(state) if state.is_file() else None
    except (OSError, UsageError):
        return None
