"""Source layout -> prepared dataset, one Ray Data task a shard."""

import hashlib
import itertools
import json
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.data

from derain import cluster
from derain.config import Config, SyntheticConfig
from derain.data import sources
from derain.data.manifest import (
    INDEX,
    MANIFEST,
    Manifest,
    Prepared,
    Quarantined,
    ShardEntry,
    open_prepared,
    rows_sha256,
    write_index,
    write_manifest,
)
from derain.data.rain import Part, synthesize
from derain.data.shards import WrittenShard, read_sample, write_shard
from derain.data.sources import Found, Naming, Pair
from derain.errors import ConfigError, DataError, OccupiedError

log = logging.getLogger(__name__)

SIDES = ("rain", "clean")
PARTS = ".parts"
"""While a dataset is being made: one note a finished shard, and the plan that they belong to."""


@dataclass(frozen=True)
class PreparedSummary:
    """What `prepare` did, as `--json` prints it."""

    pairs: int
    shards: int
    bytes: int
    quarantined: list[dict[str, str]]
    notes: list[str]
    """What a reader must know, such as a count that is not the published one."""
    manifest_sha256: str
    seconds: float
    reused: bool
    folder: str


@dataclass(frozen=True)
class _Plan:
    """Which pairs go into which shard: the same for the same source and settings."""

    source: Path
    """Absolute: workers have another working directory."""
    out: Path
    dataset: str
    split: str
    notes: tuple[str, ...]
    shards: tuple[tuple[Pair, ...], ...]
    quarantined: tuple[Quarantined, ...]
    fingerprint: str
    settings: Mapping[str, Any]

    def places(self) -> dict[str, str]:
        """Where from and where to."""
        return {"source": str(self.source), "out": str(self.out)}

    def digest(self) -> str:
        """Names this plan, so that shards of another one are not taken for its own."""
        return hashlib.sha256(
            json.dumps([self.fingerprint, dict(self.settings)], sort_keys=True).encode()
        ).hexdigest()


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
) -> PreparedSummary:
    """Write the pairs of a published dataset as shards, index and, last of all, manifest.

    `split`, `naming` and `share` choose the pairs, as `sources.find` says. Whole shards of an
    interrupted call are kept. A finished dataset of the same source and settings is left as it is.
    Pairs that cannot be used are listed as quarantined; with `strict` they stop the work. Raises
    DataError or OccupiedError; nothing unfinished has a manifest.
    """
    began = time.monotonic()
    found = sources.find(dataset, Path(source).resolve(), split, naming=naming, share=share)
    settings = {"shard_mib": shard_mib} | ({} if share == (0.0, 1.0) else {"share": list(share)})
    plan = _plan(found, Path(source).resolve(), Path(out).resolve(), settings)
    if strict and plan.quarantined:
        raise _strict_error(plan.quarantined)
    finished = _finished(plan)
    if finished is None:
        _claim(plan)
        written = _write_shards(plan)
        finished = _finish(plan, written, strict)
        reused = False
    else:
        log.info("prepare: %s is finished already, nothing to do", plan.out)
        reused = True
    for item in finished.quarantined:
        log.warning("prepare: left out %s: %s", item.path, item.reason)
    for note in finished.notes:
        log.warning("prepare: %s", note)
    return PreparedSummary(
        pairs=finished.pairs,
        shards=len(finished.shards),
        bytes=finished.bytes,
        quarantined=[asdict(item) for item in finished.quarantined],
        notes=list(finished.notes),
        manifest_sha256=finished.sha256(),
        seconds=time.monotonic() - began,
        reused=reused,
        folder=str(plan.out),
    )


def _plan(found: Found, source: Path, out: Path, settings: Mapping[str, Any]) -> _Plan:
    dataset, split, layout = found.dataset.name, found.split, found.layout
    log.info("prepare: %s, %s: %d pairs, %s", dataset, split, len(found.pairs), layout)
    return _Plan(
        source=source,
        out=out,
        dataset=dataset,
        split=split,
        notes=found.notes,
        shards=tuple(_pack(found.pairs, source, settings["shard_mib"] * 2**20)),
        quarantined=tuple(Quarantined(item.path, item.reason) for item in found.unpaired),
        fingerprint=sources.fingerprint(source, found.pairs),
        settings={"dataset": dataset, "split": split, "layout": str(layout), **settings},
    )


def _pack(pairs: Sequence[Pair], source: Path, limit: int) -> Iterator[tuple[Pair, ...]]:
    """Neighbouring pairs, as many as fit into a shard of `limit` bytes, but at least one."""
    shard: list[Pair] = []
    filled = 0
    for pair in pairs:
        size = sum((source / name).stat().st_size for name in pair.files)
        if shard and filled + size > limit:
            yield tuple(shard)
            shard, filled = [], 0
        shard.append(pair)
        filled += size
    if shard:
        yield tuple(shard)


def _finished(plan: _Plan) -> Manifest | None:
    """The manifest in the output folder, if it is of this very plan."""
    if not (plan.out / MANIFEST).is_file():
        return None
    prepared = open_prepared(plan.out)
    manifest = prepared.manifest
    if (manifest.source_fingerprint, manifest.settings) == (plan.fingerprint, plan.settings):
        _check_unchanged(plan, prepared)
        return manifest
    raise OccupiedError(
        f"{plan.out}: holds a prepared dataset of another source or other settings "
        f"({manifest.dataset}, {manifest.pairs} pairs). Choose another folder, or remove this one."
    )


def _check_unchanged(plan: _Plan, prepared: Prepared) -> None:
    """Raise OccupiedError for a source file that is newer than the manifest and has other bytes."""
    written = (plan.out / MANIFEST).stat().st_mtime_ns
    newer = [
        pair
        for pair in itertools.chain(*plan.shards)
        if any((plan.source / name).stat().st_mtime_ns > written for name in pair.files)
    ]
    if not newer:
        return
    known = {row["key"]: row for row in prepared.index.to_pylist()}
    for pair in newer:
        if pair.key not in known or _has_changed(pair, plan.source, known[pair.key]):
            raise OccupiedError(
                f"{plan.out}: was made before {' or '.join(pair.files)} changed. Prepare into "
                "another folder, or remove this one."
            )


def _has_changed(pair: Pair, source: Path, row: Mapping[str, Any]) -> bool:
    """True where the source now has other pictures than the index row was written of."""
    try:
        members = read_sample(pair, source).members
    except DataError:
        return True
    return any(
        row[f"{side}_sha256"] != hashlib.sha256(data).hexdigest()
        for side, (_, data) in members.items()
    )


def _claim(plan: _Plan) -> None:
    """Make the output folder ours; an interrupted `prepare` of the same plan goes on in it."""
    parts = plan.out / PARTS
    note = parts / "plan"
    if plan.out.exists() and not parts.is_dir() and not all(map(_is_ours, plan.out.iterdir())):
        raise OccupiedError(
            f"{plan.out}: not empty and not a prepared dataset. Choose a new folder."
        )
    parts.mkdir(parents=True, exist_ok=True)
    if note.exists() and note.read_text() != plan.digest():
        raise OccupiedError(
            f"{plan.out}: holds the beginning of another source or other settings. "
            "Choose another folder, or remove this one."
        )
    note.write_text(plan.digest())


def _is_ours(path: Path) -> bool:
    """A file of a prepared dataset that has lost its manifest."""
    return path.name == INDEX or bool(re.fullmatch(r"shard-\d{6}\.tar", path.name))


def _write_shards(plan: _Plan) -> list[WrittenShard]:
    """All shards in order; a task gets paths and writes its tar, pictures stay out of Ray."""
    todo = []
    for number, pairs in enumerate(plan.shards):
        if _kept(plan.out, number) is None:
            todo.append(_task(plan, number, pairs))
    if todo:
        kept = len(plan.shards) - len(todo)
        log.info("prepare: writing %d shards (%d kept) to %s", len(todo), kept, plan.out)
        with cluster.connected():
            made = ray.data.from_items(todo, override_num_blocks=len(todo))
            for _ in made.map(_write_one).iter_rows():
                pass
    written = [_kept(plan.out, number) for number in range(len(plan.shards))]
    return [shard for shard in written if shard is not None]


def _task(plan: _Plan, number: int, pairs: Sequence[Pair]) -> dict[str, Any]:
    """What a worker needs to write a shard, as a row of Ray Data."""
    return {
        "number": number,
        **plan.places(),
        "pairs": json.dumps([asdict(pair) for pair in pairs]),
    }


def _write_one(row: dict[str, Any]) -> dict[str, Any]:
    out, number = Path(row["out"]), row["number"]
    source = Path(row["source"])
    pairs = [Pair(**pair) for pair in json.loads(row["pairs"])]
    written = write_shard(pairs, source, out / _shard_name(number))
    note = out / PARTS / f"{number:06d}.json"
    temporary = note.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(written)))
    temporary.replace(note)
    return {"number": number}


def _kept(out: Path, number: int) -> WrittenShard | None:
    """The note of a shard that was finished: it is written after the tar has its name."""
    note = out / PARTS / f"{number:06d}.json"
    if not note.is_file():
        return None
    tree = json.loads(note.read_text())
    entry = ShardEntry(**tree["entry"]) if tree["entry"] else None
    if entry and not _has_size(out / entry.name, entry.bytes):
        return None
    return WrittenShard(
        entry=entry,
        rows=tuple(tree["rows"]),
        quarantined=tuple(Quarantined(**item) for item in tree["quarantined"]),
    )


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _finish(plan: _Plan, written: Sequence[WrittenShard], strict: bool) -> Manifest:
    quarantined = (*plan.quarantined, *itertools.chain(*(s.quarantined for s in written)))
    rows = list(itertools.chain(*(shard.rows for shard in written)))
    if strict and quarantined:
        raise _strict_error(quarantined)
    if not rows:
        raise DataError(f"{plan.source}: no pair can be used. {_listed(quarantined)}")
    entries = tuple(shard.entry for shard in written if shard.entry)
    manifest = Manifest(
        dataset=plan.dataset,
        split=plan.split,
        pairs=len(rows),
        bytes=sum(entry.bytes for entry in entries),
        shards=entries,
        index_rows_sha256=rows_sha256(rows),
        source_fingerprint=plan.fingerprint,
        settings=plan.settings,
        quarantined=quarantined,
        notes=plan.notes,
    )
    write_index(plan.out, rows)
    write_manifest(plan.out, manifest)
    for path in (plan.out / PARTS).iterdir():
        path.unlink()
    (plan.out / PARTS).rmdir()
    return manifest


def _strict_error(quarantined: Sequence[Quarantined]) -> DataError:
    return DataError(
        f"{len(quarantined)} pictures cannot be used (--strict). {_listed(quarantined)}"
    )


def _listed(quarantined: Sequence[Quarantined]) -> str:
    shown = [f"{item.path}: {item.reason}" for item in quarantined[:5]]
    more = len(quarantined) - len(shown)
    return "\n  ".join(["", *shown, *([f"and {more} more"] if more else [])])


def _shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


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
