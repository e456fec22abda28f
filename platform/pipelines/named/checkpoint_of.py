"""A path on the command line -> the checkpoint that it stands for: of a run, a sweep, or itself."""

from pathlib import Path

from derain.errors import UsageError
from derain.pipelines.train.run_folder import RESULT, read_json
from derain.training import checkpoint

SWEEP = "sweep.json"
"""What `derainctl sweep --json` prints; written into the folder of a sweep when it has finished."""
BEST, LAST = "best", "last"


def checkpoint_of(path: str | Path) -> Path | None:
    """The folder of the checkpoint that a path stands for; None if it is no run or checkpoint.

    A checkpoint stands for itself. RUN stands for the checkpoint that the run has chosen as its
    result, or its newest one before it has finished; RUN/best for the one with the best validation,
    RUN/last for the newest. SWEEP stands for the chosen checkpoint of its best trial.

    Raises UsageError for a run without the checkpoint.
    """
    path = Path(path)
    if (path / checkpoint.STATE).is_file():
        return path
    if (path / SWEEP).is_file():
        best = read_json(path / SWEEP).get("best")
        if not isinstance(best, str) or not (path / best).is_dir():
            raise UsageError(
                f"{path / SWEEP}: damaged: expected `best`, the name of a trial in {path}, found "
                f"{best!r}. Give the folder of a trial."
            )
        return checkpoint_of(path / best)
    which = path.name if path.name in (BEST, LAST) and not path.exists() else None
    run = path.parent if which else path
    if not (run / checkpoint.CONFIG).is_file():
        return None
    return _of_run(run, which)


def _of_run(run: Path, which: str | None) -> Path:
    if which is None and (run / RESULT).is_file():
        # By its name: the run's folder may have been moved.
        return run / "checkpoints" / Path(read_json(run / RESULT)["checkpoint"]).name
    newest = checkpoint.newest(run)
    if newest is None:
        raise UsageError(f"{run}: the run has no complete checkpoint yet.")
    if which != BEST:
        return newest.folder
    if not newest.state.best:
        raise UsageError(
            f"{run}: the run has no best checkpoint, as it did not validate while training. Set "
            f"train.eval_every_steps for that, or give {run} or {run}/{LAST}."
        )
    return checkpoint.folder_of(run, int(newest.state.best["step"]))
