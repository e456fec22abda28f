"""Source layout -> prepared dataset, one Ray Data task a shard."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from derain import cluster
from derain.data.prepared.card import CARD, CROISSANT, card, croissant
from derain.data.prepared.manifest import MANIFEST, Manifest, Quarantined, write_manifest
from derain.data.prepared.shards import write_shard
from derain.data.sources import discover
from derain.data.sources.discover import Naming
from derain.errors import DataError, StorageError
from derain.pipelines.prepare import parts, target
from derain.pipelines.prepare import plan as plans
from derain.pipelines.prepare.endings import ending_at_sigterm, explained
from derain.pipelines.prepare.parts import Joined, Kept
from derain.pipelines.prepare.plan import Plan
from derain.storage import files

log = logging.getLogger(__name__)

BLOCKS_PER_CPU = 4

_SHOWN = 5
"""Images that a message names."""


@dataclass(frozen=True)
class PreparedSummary:
    """What `prepare` did, as `--json` prints it."""

    pairs: int
    shards: int
    bytes: int
    quarantined: list[dict[str, str]]
    notes: list[str]
    """What a reader must know, such as a count that is not the published one."""
    duplicates: list[list[str]]
    """Rainy source images of equal bytes, group by group."""
    manifest_sha256: str
    seconds: float
    reused: bool
    folder: str


def prepare(
    dataset: str,
    source: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    shard_mib: int = 128,
    strict: bool = False,
    naming: Naming | None = None,
    share: tuple[float, float] = (0.0, 1.0),
    without: Mapping[str, str] | None = None,
    decode: bool = False,
    clean_once: bool = False,
) -> PreparedSummary:
    """Write the pairs of a published dataset as shards, index and, last of all, manifest.

    `split`, `naming`, `share` and `without` choose the pairs, as `plan.make` says. Whole shards
    of an interrupted call are kept. A finished dataset of the same source and settings is left as
    it is. Pairs that cannot be used are listed as quarantined; with `strict` they are an error,
    which names the first of them, and there is no manifest.
    Images are inspected (`headers.inspect`); with `decode` they are decoded as well. With
    `clean_once` the pairs of one clean image are one WebDataset sample, which has it once; the
    index has a row a pair in any case. Source and target may be s3:// or gs://. Raises DataError,
    OccupiedError, or StorageError for a store or a disk that fails; nothing unfinished has a
    manifest.
    """
    began = time.monotonic()
    place, folder = files.located(source), files.located(out)
    discover.check(dataset, place, split)
    target.refuse_foreign(folder)
    settings: dict[str, Any] = {"shard_mib": shard_mib}
    settings |= {} if share == (0.0, 1.0) else {"share": list(share)}
    settings |= {"decode": True} if decode else {}
    settings |= {"clean_once": True} if clean_once else {}
    with cluster.connected(), ending_at_sigterm(folder), explained():
        plan, lines = _planned(dataset, place, folder, split, settings, naming, share, without)
        if strict and plan.quarantined:
            raise _strict_error(plan.quarantined)
        finished = target.finished(plan, lines)
        reused = finished is not None
        if finished is None:
            target.claim(plan)
            _write_shards(plan, lines)
            finished = _finish(plan, strict)
        else:
            _left_as_it_is(folder, finished, strict)
    _warn(finished)
    return PreparedSummary(
        pairs=finished.pairs,
        shards=len(finished.shards),
        bytes=finished.bytes,
        quarantined=[asdict(item) for item in finished.quarantined],
        notes=list(finished.notes),
        duplicates=[list(group) for group in finished.duplicates],
        manifest_sha256=finished.sha256(),
        seconds=time.monotonic() - began,
        reused=reused,
        folder=str(folder),
    )


def _left_as_it_is(out: Path, manifest: Manifest, strict: bool) -> None:
    """A finished dataset; of one that was killed after its manifest was written, the rest goes."""
    parts.tidy(out)
    _describe(out, manifest)
    if strict and manifest.quarantined:
        raise _strict_error(manifest.quarantined)
    log.info("prepare: %s is finished already, nothing to do", out)


def _warn(manifest: Manifest) -> None:
    left_out = [f"left out {item.path}: {item.reason}" for item in manifest.quarantined]
    groups = [(len(group), ", ".join(group)) for group in manifest.duplicates]
    twice = [f"the same image, kept {count} times: {names}" for count, names in groups]
    for line in (*_some(left_out), *manifest.notes, *_some(twice)):
        log.warning("prepare: %s", line)


def _some(lines: Sequence[str]) -> list[str]:
    """The first ones, and how many more there are."""
    more = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {more:,} more: see {MANIFEST}"] if more > 0 else [])]


def _planned(*given: Any) -> tuple[Plan, ray.ObjectRef]:
    """The plan, and where its lines are."""
    plan, lines = _aside(plans.make).options(num_returns=2).remote(*given)
    try:
        made: Plan = ray.get(plan)
    except ray.exceptions.RayTaskError:
        ray.wait([lines])  # whose error is the same: else Ray prints it as one that nobody saw
        raise
    log.info(
        "prepare: %s, %s: %d pairs in %d shards, %s",
        made.dataset, made.split, made.pairs, len(made), made.settings["layout"],
    )  # fmt: skip
    if made.repeated_bytes:
        log.info(
            "prepare: %.0f MiB are clean images again, once for each of their rainy ones; "
            "--clean-once writes each of them once",
            made.repeated_bytes / 2**20,
        )
    return made, lines


def _aside(work: Callable[..., Any]) -> Any:
    """A task that takes no core from the others: nothing else runs while it does."""
    return ray.remote(num_cpus=0)(work)


def _write_shards(plan: Plan, lines: ray.ObjectRef) -> None:
    """Write the shards that are not there yet; tasks get paths, images stay out of Ray."""
    todo = [number for number, shard in enumerate(_kept(plan)) if shard is None]
    log.info(
        "prepare: writing %d shards (%d kept) to %s", len(todo), len(plan) - len(todo), plan.out
    )
    if not todo:
        return
    blocks = min(len(todo), BLOCKS_PER_CPU * cluster.cpus())
    rows = [{"number": number} for number in todo]
    made = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _write_some, batch_size=None, fn_kwargs={"plan": ray.put(plan), "lines": lines}
    )
    # Else Ray Data runs one task for its first second, until it knows its share of the cluster.
    # Ray itself starts no more tasks than there are cores.
    made.context.op_resource_reservation_enabled = False
    for row in made.iter_rows():
        if row["failed"]:
            raise StorageError(row["failed"])


def _write_some(
    batch: dict[str, np.ndarray], plan: ray.ObjectRef, lines: ray.ObjectRef
) -> dict[str, np.ndarray]:
    """The shards of one task; returns why it could not go on, if so.

    As a value, since of an exception in a task Ray Data passes on nothing but a text.
    """
    known, text = ray.get([plan, lines])
    failed = ""
    try:
        with explained():
            for number in batch["number"]:
                _write_one(known, text, int(number))
    except StorageError as error:
        failed = str(error)
    return {"failed": np.array([failed])}


def _write_one(plan: Plan, lines: np.ndarray, number: int) -> None:
    path = plan.out / f"shard-{number:06d}.tar"
    pairs = plan.pairs_of(lines, number)
    written = write_shard(pairs, plan.source, path, decode="decode" in plan.settings)
    parts.keep(plan.out, number, written, plan.marks[number])


def _finish(plan: Plan, strict: bool) -> Manifest:
    """Join the parts into index and manifest, in a task: the driver holds nothing of a pair."""
    shards = [shard for shard in _kept(plan) if shard]
    entries = tuple(shard.entry for shard in shards if shard.entry)
    quarantined = (*plan.quarantined, *(item for shard in shards for item in shard.quarantined))
    if strict and quarantined:
        raise _strict_error(quarantined)
    if not entries:
        raise DataError(f"{plan.source}: no pair can be used. {_listed(quarantined)}")
    joined: Joined = ray.get(_aside(parts.join).remote(plan.out, len(plan)))
    manifest = Manifest(
        dataset=plan.dataset,
        split=plan.split,
        pairs=sum(entry.pairs for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        shards=entries,
        index_sha256=joined.index_sha256,
        source_fingerprint=plan.fingerprint,
        settings=plan.settings,
        quarantined=quarantined,
        notes=(*plan.notes, *joined.notes),
        duplicates=joined.duplicates,
    )
    _describe(plan.out, manifest)
    parts.drop_others(plan.out, entries)
    write_manifest(plan.out, manifest)
    parts.tidy(plan.out)
    return manifest


def _describe(out: Path, manifest: Manifest) -> None:
    """What follows from the manifest alone; a finished dataset keeps a card that was added to."""
    metadata = croissant(manifest).encode()
    if not (out / CROISSANT).is_file() or (out / CROISSANT).read_bytes() != metadata:
        (out / CROISSANT).write_bytes(metadata)
    if not ((out / CARD).is_file() and (out / MANIFEST).is_file()):
        (out / CARD).write_text(card(manifest), encoding="utf-8")


def _kept(plan: Plan) -> list[Kept | None]:
    """What there is of each shard."""
    return [parts.kept(plan.out, number, mark) for number, mark in enumerate(plan.marks)]


def _strict_error(quarantined: Sequence[Quarantined]) -> DataError:
    return DataError(f"{len(quarantined)} images cannot be used (--strict). {_listed(quarantined)}")


def _listed(quarantined: Sequence[Quarantined]) -> str:
    shown = [f"{item.path}: {item.reason}" for item in quarantined[:_SHOWN]]
    more = len(quarantined) - len(shown)
    return "\n  ".join(["", *shown, *([f"and {more} more"] if more else [])])
