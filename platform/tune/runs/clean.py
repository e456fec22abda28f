"""What can go from the folders of runs, and removing it: `derainctl runs clean`.

checkpoint   an older one of a finished run: not chosen, best or last, and named by no start_from
cache        decoded pixels of a dataset that no longer exists, or what a killed builder left
leftover     a temporary file or folder of a killed writer, or a prepared dataset that was never
             finished; nothing of it was written for an hour

Nothing of a run or a sweep that is running goes, and of a sweep only once it has finished.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from derain.data.loading import caches
from derain.data.loading.caches import Cache, list_caches
from derain.data.prepared.manifest import MANIFEST
from derain.errors import DerainError, OccupiedError
from derain.pipelines.prepare.finished_shards import PARTS
from derain.training import checkpoint
from derain.tune.runs.checkpoints import checkpoints, size_of
from derain.tune.runs.found import folders, name_of, read
from derain.tune.runs.run_state import config_or_none, read_run
from derain.tune.runs.sweep_state import is_sweep, read_sweep

log = logging.getLogger(__name__)

STALE_S = 3600.0
"""A leftover is nobody's any more if nothing of it was written for this long."""


@dataclass(frozen=True)
class Item:
    """Something that can go."""

    kind: Literal["checkpoint", "cache", "leftover"]
    path: Path
    bytes: int
    why: str
    run: str | None = None
    """The name of the run it belongs to."""


def removable(places: Sequence[Path], cache_folder: Path) -> list[Item]:
    """All that can go below some folders of runs, and from the folder of caches."""
    runs = [run for place in places for run in _runs(place)]
    wanted = {_start_from(folder) for folder, _, _ in runs} - {None}
    items = [
        item
        for folder, name, finished in runs
        if finished
        for item in _old_checkpoints(folder, name)
        if item.path.resolve() not in wanted
    ]
    items += [item for place in places for item in _leftovers(place)]
    return [*items, *removable_caches(cache_folder)]


def removable_caches(folder: Path, *, everything: bool = False) -> list[Item]:
    """The caches that can go: without a dataset, or with `everything` all that no process uses."""
    states = ("gone", "unfinished", *(("idle",) if everything else ()))
    return [_cache_item(cache) for cache in list_caches(folder) if cache.state in states]


def remove(items: Sequence[Item]) -> list[Item]:
    """Remove these; returns those that are gone. One in use by now stays, as the log says."""
    return [item for item in items if _removed(item)]


def _runs(place: Path) -> Iterator[tuple[Path, str, bool]]:
    """The folder and the name of every run and trial, and whether it has finished for good."""
    for folder in folders(place):
        name = name_of(folder, place)
        if not is_sweep(folder):
            yield folder, name, read_run(folder, name).state == "finished"
            continue
        try:
            sweep, trials = read_sweep(folder, name)
        except DerainError as error:
            log.warning("nothing of %s goes: %s", name, error)
            continue
        for trial in trials:
            done = sweep.state == trial.state == "finished"
            yield trial.folder, trial.name, done


def _old_checkpoints(folder: Path, name: str) -> Iterator[Item]:
    saved = checkpoints(folder)
    if not any("chosen" in each.uses for each in saved):
        return  # its result names another: nobody knows which one counts
    for each in saved:
        if not each.uses:
            why = f"step {each.step} of a finished run, neither chosen, best nor last"
            yield Item("checkpoint", each.folder, each.bytes, why, name)


def _start_from(folder: Path) -> Path | None:
    """The checkpoint that a run has started with, and would again."""
    config = config_or_none(folder)
    if config is None or config.train.start_from is None:
        return None
    return Path(config.train.start_from).resolve()


def _leftovers(place: Path) -> Iterator[Item]:
    for path in place.rglob(".*.tmp"):
        if _is_stale(path) and not _is_running(path, place):
            yield Item("leftover", path, size_of(path), "of a writer that was killed")
    for parts in place.rglob(PARTS):
        out = parts.parent
        if not (out / MANIFEST).exists() and _is_stale(out):
            yield Item("leftover", out, size_of(out), "of a `prepare` that never finished")


def _is_stale(path: Path) -> bool:
    try:
        inside = [path, *path.rglob("*")] if path.is_dir() else [path]
        newest = max(each.lstat().st_mtime for each in inside)
    except FileNotFoundError:
        return False  # somebody works on it
    return time.time() - newest > STALE_S


def _is_running(path: Path, place: Path) -> bool:
    """Whether a run or sweep to which a path belongs is running."""
    owners = [parent for parent in path.parents if parent.is_relative_to(place)]
    return any(
        (is_sweep(owner) and read(owner, "").state == "running")
        or read_run(owner, "").state == "running"
        for owner in owners
    )


def _cache_item(cache: Cache) -> Item:
    why = {
        "gone": f"its dataset no longer exists: {', '.join(cache.datasets)}",
        "unfinished": "of a builder that was killed",
        "idle": f"of {', '.join(cache.datasets) or 'a dataset'}; would be built again",
    }
    return Item("cache", cache.path, cache.bytes, why[cache.state])


def _removed(item: Item) -> bool:
    try:
        return _REMOVERS[item.kind](item.path)
    except OccupiedError:
        log.warning("%s stays: its run is being trained again", item.path)
    except OSError as error:
        log.warning("%s stays: %s", item.path, error.strerror or error)
    return False


def _remove_checkpoint(folder: Path) -> bool:
    """Remove a checkpoint, under the lock of its run and only if it is still of no use."""
    run = folder.parents[1]
    with checkpoint.command_lock(run):
        if any(each.folder == folder and each.uses for each in checkpoints(run)):
            return False
        checkpoint.remove(folder)
    return True


def _remove_cache(path: Path) -> bool:
    freed = caches.remove(path)
    if not freed and path.exists():
        log.warning("%s stays: it is in use, or another user's", path)
    return not path.exists()


def _remove_leftover(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return True


_REMOVERS = {
    "checkpoint": _remove_checkpoint,
    "cache": _remove_cache,
    "leftover": _remove_leftover,
}
