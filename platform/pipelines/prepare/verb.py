"""`prepare`: a dataset as published -> shards, index and, last of all, the manifest."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray

from derain import cluster
from derain.data.prepared import remarks
from derain.data.prepared.card import CARD, CROISSANT, card, croissant
from derain.data.prepared.manifest import MANIFEST, Manifest, write_manifest
from derain.data.sources import discover
from derain.data.sources.found import QUIET
from derain.data.sources.layouts import Dataset
from derain.errors import DataError
from derain.pipelines.prepare import (
    finished_shards,
    output_folder,
    shard_names,
    shard_tasks,
    strict,
)
from derain.pipelines.prepare.finished_shards import IndexSummary
from derain.pipelines.prepare.options import DEFAULTS, PrepareOptions
from derain.pipelines.prepare.plan import Plan, make_plan
from derain.pipelines.prepare.task_errors import RUN_AGAIN, explaining_errors
from derain.pipelines.sigterm import stopping_at_sigterm
from derain.storage import files
from derain.storage.amounts import counted
from derain.storage.output_paths import check_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedSummary:
    """The prepared dataset, as `--json` prints it."""

    pairs: int
    shards: int
    bytes: int
    quarantined: list[dict[str, str]]
    notes: list[str]
    """What a user should know, such as a count that differs from the published one."""
    duplicates: list[list[str]]
    """Rainy source images with equal bytes, in groups."""
    manifest_sha256: str
    seconds: float
    reused: bool
    folder: str


def prepare(
    dataset: str | Dataset,
    source: str | Path,
    out: str | Path,
    options: PrepareOptions = DEFAULTS,
    **changes: Any,
) -> PreparedSummary:
    """Write the pairs of a dataset as shards, index and manifest.

    `dataset` is a name of the catalogue, or a row of the user's own (`catalogue.own_file`).
    `changes` are fields of `options`, as keywords: `split="test"`. Source and output folder may be
    s3:// or gs://. The finished shards of an interrupted call are kept, a finished dataset of the
    same source and options is reused. Pairs that cannot be used are quarantined: the manifest lists
    them. The index has one row per pair.

    Raises DataError for an unusable source, OccupiedError for an output folder that holds something
    else, StorageError for a store or disk that fails, StoppedError on SIGTERM. There is no manifest
    then.
    """
    began = time.monotonic()
    options = replace(options, **changes)
    place, folder = files.locate(source), files.locate(out)
    discover.check_source(dataset, place, options.split)
    output_folder.refuse_foreign(folder)
    check_folder(folder)
    stopped = f"{folder}: stopped. To continue, {RUN_AGAIN}"
    with cluster.connected(), stopping_at_sigterm(stopped), explaining_errors():
        plan, lines = _make_plan(dataset, place, folder, options)
        manifest = output_folder.finished_manifest(plan, lines)
        if options.strict:
            strict.check(plan, lines, manifest)
        reused = manifest is not None
        if manifest is None:
            output_folder.claim(plan)
            shard_tasks.write_missing_shards(plan, lines)
            manifest = _finish(plan, options.strict)
        else:
            _reuse(folder, manifest)
    _warn(manifest)
    return PreparedSummary(
        pairs=manifest.pairs,
        shards=len(manifest.shards),
        bytes=manifest.bytes,
        quarantined=[asdict(item) for item in manifest.quarantined],
        notes=list(manifest.notes),
        duplicates=[list(group) for group in manifest.duplicates],
        manifest_sha256=manifest.sha256(),
        seconds=time.monotonic() - began,
        reused=reused,
        folder=str(folder),
    )


def _make_plan(
    dataset: str | Dataset, source: Path, out: Path, options: PrepareOptions
) -> tuple[Plan, ray.ObjectRef]:
    """The plan, and a reference to its lines."""
    task = _coreless(make_plan).options(num_returns=2)
    plan_ref, lines = task.remote(dataset, source, out, options)
    try:
        plan: Plan = ray.get(plan_ref)
    except ray.exceptions.RayTaskError:
        ray.wait([lines])  # it holds the same error, which Ray would print as one nobody handled
        raise
    log.info(
        "prepare: %s, %s: %s in %s, %s",
        plan.dataset, plan.split, counted(plan.pairs, "pair"), counted(len(plan), "shard"),
        plan.settings["layout"],
    )  # fmt: skip
    if plan.repeated_bytes:
        log.info(
            "prepare: %.0f MiB are repeated clean images, once per rainy image; --clean-once "
            "stores each of them once",
            plan.repeated_bytes / 2**20,
        )
    return plan, lines


def _coreless(work: Callable[..., Any]) -> Any:
    """A Ray task that reserves no core: no other task runs at the same time."""
    return ray.remote(num_cpus=0)(work)


def _reuse(out: Path, manifest: Manifest) -> None:
    """Complete a finished dataset whose `prepare` was killed right after writing the manifest."""
    finished_shards.clean_up(out)
    _describe(out, manifest)
    log.info("prepare: %s is already finished, nothing to do", out)


def _finish(plan: Plan, is_strict: bool) -> Manifest:
    """Write index and manifest; the index in a Ray task, so that the driver holds no rows."""
    parts = shard_tasks.all_parts(plan)
    quarantined = (*plan.quarantined, *(item for part in parts for item in part.quarantined))
    if is_strict:
        strict.refuse(plan, quarantined)
    written = [part.entries for part in parts]
    if not any(written):
        raise DataError(f"{plan.source}: no pair can be used. {strict.listed(quarantined)}")
    names = shard_names.final_names(plan.prefix, written)
    write_index = _coreless(finished_shards.write_joined_index)
    index: IndexSummary = ray.get(write_index.remote(plan.out, written, names))
    entries = index.entries
    manifest = Manifest(
        dataset=plan.dataset,
        split=plan.split,
        pairs=sum(entry.pairs for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        shards=entries,
        index_sha256=index.index_sha256,
        source_fingerprint=plan.fingerprint,
        settings=plan.settings,
        quarantined=quarantined,
        notes=(*plan.notes, *index.notes, *remarks.notes(remarks.joined(p.remarks for p in parts))),
        duplicates=index.duplicates,
    )
    _describe(plan.out, manifest)
    shard_names.rename(plan.out, plan.out / finished_shards.RENAMED, names)
    finished_shards.remove_stale_shards(plan.out, manifest)
    write_manifest(plan.out, manifest)
    finished_shards.clean_up(plan.out)
    return manifest


def _describe(out: Path, manifest: Manifest) -> None:
    """Write card and Croissant metadata; the card of a finished dataset may have been edited."""
    metadata = croissant(manifest).encode()
    if not (out / CROISSANT).is_file() or (out / CROISSANT).read_bytes() != metadata:
        (out / CROISSANT).write_bytes(metadata)
    if not ((out / CARD).is_file() and (out / MANIFEST).is_file()):
        (out / CARD).write_text(card(manifest), encoding="utf-8")


def _warn(manifest: Manifest) -> None:
    """Log the quarantined images, the notes and the duplicates."""
    more = f"and {{:,}} more: see {MANIFEST}"
    quarantined = [f"left out {item}" for item in manifest.quarantined]
    groups = [(len(group), ", ".join(group)) for group in manifest.duplicates]
    copies = [f"{count} copies of the same image were kept: {names}" for count, names in groups]
    loud = [note for note in manifest.notes if not note.startswith(QUIET)]
    lines = (*strict.first(quarantined, more), *loud, *strict.first(copies, more))
    for line in lines:
        log.warning("prepare: %s", line)
    for note in manifest.notes:
        if note not in loud:
            log.info("prepare: %s", note)
