"""Source layout -> prepared dataset, one Ray Data task a shard."""

import contextlib
import hashlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from derain import cluster
from derain.config import Config
from derain.config.training import SyntheticConfig
from derain.data import files, sources
from derain.data.card import CARD, CROISSANT, card, croissant
from derain.data.manifest import (
    INDEX,
    MANIFEST,
    Manifest,
    Quarantined,
    ShardEntry,
    open_prepared,
    read_index,
    write_index,
    write_manifest,
)
from derain.data.rain import Part, synthesize
from derain.data.shards import read_sample, write_shard
from derain.data.sources import Naming, Pair
from derain.errors import ConfigError, DataError, DerainError, OccupiedError
from derain.pipelines import plan as plans
from derain.pipelines.plan import Plan

log = logging.getLogger(__name__)

SIDES = ("rain", "clean")
PARTS = ".parts"
"""While a dataset is being made: the name of its plan, and for each finished shard its rows of the
index and then, last of all, a note."""
BLOCKS_PER_CPU = 4


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
    """Rainy source pictures of equal bytes, group by group."""
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
    without: frozenset[str] | None = None,
    decode: bool = False,
) -> PreparedSummary:
    """Write the pairs of a published dataset as shards, index and, last of all, manifest.

    `split`, `naming`, `share` and `without` choose the pairs, as `sources.find` says. Whole shards
    of an interrupted call are kept. A finished dataset of the same source and settings is left as
    it is. Pairs that cannot be used are listed as quarantined; with `strict` they stop the work.
    Pictures are inspected (`headers.inspect`); with `decode` they are decoded as well. Source and
    target may be s3:// or gs://. Raises DataError, OccupiedError or StorageError; nothing
    unfinished has a manifest.
    """
    began = time.monotonic()
    place, target = files.located(source), files.located(out)
    sources.check(dataset, place, split)
    _refuse_foreign(target)
    settings: dict[str, Any] = {"shard_mib": shard_mib}
    settings |= {} if share == (0.0, 1.0) else {"share": list(share)}
    settings |= {"decode": True} if decode else {}
    with cluster.connected(), _errors_of_tasks():
        plan, lines = _planned(dataset, place, target, split, settings, naming, share, without)
        if strict and plan.quarantined:
            raise _strict_error(plan.quarantined)
        finished = _finished(plan, lines)
        reused = finished is not None
        if finished is None:
            _claim(plan)
            _write_shards(plan, lines)
            finished = _finish(plan, strict)
    if reused:
        log.info("prepare: %s is finished already, nothing to do", target)
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
        folder=str(target),
    )


def _warn(manifest: Manifest) -> None:
    for item in manifest.quarantined:
        log.warning("prepare: left out %s: %s", item.path, item.reason)
    for note in manifest.notes:
        log.warning("prepare: %s", note)
    for group in manifest.duplicates:
        log.warning("prepare: the same picture, kept %d times: %s", len(group), ", ".join(group))


@contextlib.contextmanager
def _errors_of_tasks() -> Iterator[None]:
    """Raise an expected error of a task as it was raised there, without Ray's wrapping."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, DerainError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if type(cause) is type(error) or cause is None:
            raise
        raise cause from None


def _planned(*given: Any) -> tuple[Plan, ray.ObjectRef]:
    """The plan, and where its lines are."""
    make = ray.remote(plans.make).options(num_cpus=0, num_returns=2)
    plan, lines = make.remote(*given)
    made: Plan = ray.get(plan)
    log.info(
        "prepare: %s, %s: %d pairs in %d shards, %s",
        made.dataset, made.split, made.pairs, len(made), made.settings["layout"],
    )  # fmt: skip
    return made, lines


def _finished(plan: Plan, lines: ray.ObjectRef) -> Manifest | None:
    """The manifest in the output folder, if it is of this very plan."""
    if not (plan.out / MANIFEST).is_file():
        return None
    manifest = open_prepared(plan.out).manifest
    if (manifest.source_fingerprint, manifest.settings) != (plan.fingerprint, plan.settings):
        raise OccupiedError(
            f"{plan.out}: holds a prepared dataset of another source or other settings "
            f"({manifest.dataset}, {manifest.pairs} pairs). Choose another folder, or remove it."
        )
    if plan.newest_ns > (plan.out / MANIFEST).stat().st_mtime_ns:
        changed = ray.get(ray.remote(_first_change).remote(plan, lines))
        if changed is not None:
            raise OccupiedError(
                f"{plan.out}: was made before {changed} changed. Prepare into another folder, or "
                "remove this one."
            )
    return manifest


def _first_change(plan: Plan, lines: np.ndarray) -> str | None:
    """The files of the first pair that are newer than the dataset and have other bytes in it."""
    written = (plan.out / MANIFEST).stat().st_mtime_ns
    known = {row["key"]: row for row in open_prepared(plan.out).index.to_pylist()}
    for number in range(len(plan)):
        for pair in plan.pairs_of(lines, number):
            stats = files.stats(plan.source, pair.files)
            newer = any(max(stat.st_mtime_ns, stat.st_ctime_ns) > written for stat in stats)
            if newer and _has_changed(pair, plan, known.get(pair.key)):
                return " or ".join(pair.files)
    return None


def _has_changed(pair: Pair, plan: Plan, row: Mapping[str, Any] | None) -> bool:
    """True where a pair is not what the dataset has of it; None: it was left out."""
    try:
        members = read_sample(pair, plan.source, decode="decode" in plan.settings).members
    except DataError:
        return row is not None
    return row is None or any(
        row[f"{side}_sha256"] != hashlib.sha256(data).hexdigest()
        for side, (_, data) in members.items()
    )


def _refuse_foreign(out: Path) -> None:
    """Raise OccupiedError for a folder with something in it that `prepare` did not write."""
    if not out.exists():
        return
    names = {path.name for path in out.iterdir()}
    names -= {CARD} if CROISSANT in names else set()  # a README alone is somebody's own
    if not names & {PARTS, MANIFEST} and not all(map(_is_ours, names)):
        raise OccupiedError(f"{out}: not empty and not a prepared dataset. Choose a new folder.")


def _is_ours(name: str) -> bool:
    """A file of a prepared dataset that has lost its manifest."""
    return name in (INDEX, CROISSANT) or bool(re.fullmatch(r"shard-\d{6}\.tar", name))


def _claim(plan: Plan) -> None:
    """Make the output folder ours; an interrupted `prepare` of the same plan goes on in it."""
    note = plan.out / PARTS / "plan"
    note.parent.mkdir(parents=True, exist_ok=True)
    if note.is_file() and note.read_text() not in ("", plan.digest()):
        raise OccupiedError(
            f"{plan.out}: holds the beginning of another source or other settings. "
            "Choose another folder, or remove this one."
        )
    note.write_text(plan.digest())


def _write_shards(plan: Plan, lines: ray.ObjectRef) -> None:
    """Write the shards that are not there yet; tasks get paths, pictures stay out of Ray."""
    todo = [number for number in range(len(plan)) if _kept(plan, number) is None]
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
    for _ in made.iter_rows():
        pass


def _write_some(
    batch: dict[str, np.ndarray], plan: ray.ObjectRef, lines: ray.ObjectRef
) -> dict[str, np.ndarray]:
    """The shards of one task; returns nothing but their numbers."""
    known, text = ray.get([plan, lines])
    for number in batch["number"]:
        _write_one(known, text, int(number))
    return {"number": batch["number"]}


def _write_one(plan: Plan, lines: np.ndarray, number: int) -> None:
    written = write_shard(
        plan.pairs_of(lines, number),
        plan.source,
        plan.out / f"shard-{number:06d}.tar",
        decode="decode" in plan.settings,
    )
    parts = plan.out / PARTS
    with files.new_file(parts / f"{number:06d}.parquet") as file:
        pq.write_table(written.rows, file)
    entry = asdict(written.entry) if written.entry else None
    left_out = [asdict(item) for item in written.quarantined]
    note = {"mark": plan.marks[number], "entry": entry, "quarantined": left_out}
    with files.new_file(parts / f"{number:06d}.json") as file:
        file.write(json.dumps(note).encode())


@dataclass(frozen=True)
class _Kept:
    """A shard that is finished: its note was written when tar and rows had their names."""

    entry: ShardEntry | None
    quarantined: tuple[Quarantined, ...]


def _kept(plan: Plan, number: int) -> _Kept | None:
    """None for a shard that is missing, or was made of files that have been written to since."""
    note = plan.out / PARTS / f"{number:06d}.json"
    if not note.is_file():
        return None
    tree = json.loads(note.read_text())
    entry = ShardEntry(**tree["entry"]) if tree["entry"] else None
    if tree["mark"] != plan.marks[number]:
        log.warning("prepare: making shard %d again: its pictures have been changed", number)
        return None
    if entry and not _has_size(plan.out / entry.name, entry.bytes):
        return None
    return _Kept(entry, tuple(Quarantined(**item) for item in tree["quarantined"]))


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _finish(plan: Plan, strict: bool) -> Manifest:
    """Join the parts into index and manifest; one part at a time is in memory."""
    kept = [_kept(plan, number) for number in range(len(plan))]
    entries = tuple(shard.entry for shard in kept if shard and shard.entry)
    left_out = [item for shard in kept if shard for item in shard.quarantined]
    quarantined = (*plan.quarantined, *left_out)
    if strict and quarantined:
        raise _strict_error(quarantined)
    if not entries:
        raise DataError(f"{plan.source}: no pair can be used. {_listed(quarantined)}")
    manifest = Manifest(
        dataset=plan.dataset,
        split=plan.split,
        pairs=sum(entry.pairs for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        shards=entries,
        index_sha256=write_index(plan.out / INDEX, (rows for _, rows in _parts(plan))),
        source_fingerprint=plan.fingerprint,
        settings=plan.settings,
        quarantined=quarantined,
        notes=plan.notes,
        duplicates=tuple(_duplicates(plan)),
    )
    (plan.out / CROISSANT).write_text(croissant(manifest), encoding="utf-8")
    (plan.out / CARD).write_text(card(manifest), encoding="utf-8")
    write_manifest(plan.out, manifest)
    _tidy(plan.out)
    return manifest


def _parts(plan: Plan) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each shard, in order."""
    for number in range(len(plan)):
        path = plan.out / PARTS / f"{number:06d}.parquet"
        yield number, read_index(path.read_bytes(), str(path))


def _duplicates(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Source names of rainy pictures with equal bytes; 8 bytes a picture until some are found."""
    digests = [
        np.array([int(text[:16], 16) for text in rows["rain_sha256"].to_pylist()], np.uint64)
        for _, rows in _parts(plan)
    ]
    values, counts = np.unique(np.concatenate(digests), return_counts=True)
    several = set(values[counts > 1].tolist())
    if not several:
        return
    groups: dict[str, list[str]] = {}
    for _, rows in _parts(plan):
        for name, text in zip(
            rows["rain_source"].to_pylist(), rows["rain_sha256"].to_pylist(), strict=True
        ):
            if int(text[:16], 16) in several:
                groups.setdefault(text, []).append(name)
    yield from (tuple(names) for names in groups.values() if len(names) > 1)


def _tidy(out: Path) -> None:
    """Remove what was only needed on the way, and what killed workers have left."""
    for path in (out / PARTS).iterdir():
        path.unlink(missing_ok=True)
    (out / PARTS).rmdir()
    files.remove_leftovers(out)


def _strict_error(quarantined: Sequence[Quarantined]) -> DataError:
    return DataError(
        f"{len(quarantined)} pictures cannot be used (--strict). {_listed(quarantined)}"
    )


def _listed(quarantined: Sequence[Quarantined]) -> str:
    shown = [f"{item.path}: {item.reason}" for item in quarantined[:5]]
    more = len(quarantined) - len(shown)
    return "\n  ".join(["", *shown, *([f"and {more} more"] if more else [])])


def check_data(config: Config) -> None:
    """Raise ConfigError when the config names no data, DataError when a dataset cannot be used."""
    data = config.data
    for folder in (*data.train, *data.eval):
        open_prepared(folder).require_clean()
    if not data.train and data.synthetic is None:
        raise ConfigError(
            f"{config.name}, profile {config.profile or 'none'}: data.train and data.eval name no "
            "prepared dataset. Make them with `derainctl prepare paired SOURCE OUT`, one of the "
            "training pairs and one of the held-out pairs, and give --set data.train=OUT "
            "--set data.eval=OUT2."
        )


def with_data(config: Config) -> Config:
    """The config with datasets that are there; synthetic ones are made where it names none.

    Raises what `check_data` raises.
    """
    check_data(config)
    data = config.data
    if data.synthetic is None or data.train:
        return config
    train, held_out = _synthetic(data.synthetic, Path(config.output_dir) / "data")
    return config.replaced({"data.train": [train], "data.eval": [held_out]}, "data.synthetic")


def _synthetic(wanted: SyntheticConfig, place: Path) -> tuple[str, str]:
    """Prepared training and held-out datasets of rendered rain, reused where they are finished."""
    digest = hashlib.sha256(wanted.model_dump_json().encode()).hexdigest()[:12]
    folder = place / f"synthetic-{digest}"
    return (
        _synthetic_part(wanted, folder, "train", wanted.train_pairs),
        _synthetic_part(wanted, folder, "held_out", wanted.eval_pairs),
    )


def _synthetic_part(wanted: SyntheticConfig, folder: Path, part: Part, count: int) -> str:
    out = folder / part
    if (out / MANIFEST).is_file():
        log.info("data: reusing %s (%d pairs)", out, open_prepared(out).manifest.pairs)
        return str(out)
    log.info("data: rendering %d pairs of %s rain into %s", count, wanted.density, out)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "paired"
        synthesize(
            Path(wanted.clean) if wanted.clean else None,
            source,
            count=count,
            seed=wanted.seed,
            density=wanted.density,
            size_px=wanted.size_px,
            part=part,
        )
        prepare("paired", source, out, split=part, strict=True)
    return str(out)
