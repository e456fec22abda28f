"""What the output folder of `prepare` may hold: nothing, an unfinished or a finished dataset of
the same plan."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray

from derain.data.prepared.card import CARD, CROISSANT
from derain.data.prepared.index import INDEX
from derain.data.prepared.manifest import MANIFEST, Manifest, open_prepared
from derain.data.prepared.reading import read_pair
from derain.data.sources.pairs import Pair
from derain.errors import DataError, OccupiedError
from derain.pipelines.prepare.finished_shards import PARTS
from derain.pipelines.prepare.plan import Plan
from derain.pipelines.prepare.shard_names import is_shard_name
from derain.storage import files
from derain.storage.atomic import new_file


def refuse_foreign(out: Path) -> None:
    """Raise OccupiedError if the folder holds anything that `prepare` did not write."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OccupiedError(f"{out}: is a file. Choose a new folder.")
    names = {path.name for path in out.iterdir()}
    if CROISSANT in names:  # a README without it is the user's own
        names.discard(CARD)
    if not names & {PARTS, MANIFEST} and not all(map(_is_ours, names)):
        raise OccupiedError(f"{out}: not empty and not a prepared dataset. Choose a new folder.")


def _is_ours(name: str) -> bool:
    """True for a file of a prepared dataset, which may have lost its manifest."""
    return name in (INDEX, CROISSANT) or is_shard_name(name)


def claim(plan: Plan) -> None:
    """Reserve the output folder for a plan; an interrupted `prepare` of the same plan continues.

    Raises OccupiedError if another plan was begun there.
    """
    note = plan.out / PARTS / "plan"
    note.parent.mkdir(parents=True, exist_ok=True)
    begun = note.read_text(encoding="utf-8", errors="replace") if note.is_file() else ""
    if begun not in ("", plan.identity()):
        raise OccupiedError(
            f"{plan.out}: holds an unfinished dataset of {_difference(_settings(begun), plan)}. "
            "Choose another folder, or remove this one."
        )
    with new_file(note) as file:
        file.write(plan.identity().encode())


def _settings(identity: str) -> Mapping[str, Any]:
    """The settings in a plan's identity; empty for any other text."""
    try:
        return dict(json.loads(identity)["settings"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _difference(settings: Mapping[str, Any], plan: Plan) -> str:
    """How a dataset with these settings differs from the plan, for a message."""
    if settings == plan.settings:
        return "other images with the same settings"
    differing = [
        f"{name} {settings.get(name)} there, {plan.settings.get(name)} here"
        for name in sorted(settings.keys() | plan.settings.keys())
        if settings.get(name) != plan.settings.get(name)
    ]
    return f"another source or other settings: {'; '.join(differing)}"


def finished_manifest(plan: Plan, lines: ray.ObjectRef) -> Manifest | None:
    """The manifest in the output folder, None if the dataset is not finished.

    Raises OccupiedError if it is not of this plan or its source images have changed since.
    """
    if not (plan.out / MANIFEST).is_file():
        return None
    manifest = open_prepared(plan.out, anew=True).manifest
    if (manifest.source_fingerprint, manifest.settings) != (plan.fingerprint, plan.settings):
        raise OccupiedError(
            f"{plan.out}: holds a prepared dataset of {_difference(manifest.settings, plan)} "
            f"({manifest.dataset}, {manifest.pairs} pairs). Choose another folder, or remove it."
        )
    if plan.newest_ns > (plan.out / MANIFEST).stat().st_mtime_ns:
        changed = ray.get(ray.remote(_first_change).remote(plan, lines))
        if changed is not None:
            raise OccupiedError(
                f"{plan.out}: was prepared before {changed} changed. Prepare into another folder, "
                "or remove this one."
            )
    return manifest


def _first_change(plan: Plan, lines: np.ndarray) -> str | None:
    """The files of the first pair that are newer than the dataset and differ from it."""
    written = (plan.out / MANIFEST).stat().st_mtime_ns
    rows = {row["key"]: row for row in open_prepared(plan.out).index.to_pylist()}
    for number in range(len(plan)):
        for pair in plan.pairs_of(lines, number):
            stats = files.stats(plan.source, pair.files)
            newer = any(
                stat is None or max(stat.st_mtime_ns, stat.st_ctime_ns) > written for stat in stats
            )
            if newer and _has_changed(pair, plan, rows.get(pair.key)):
                return " or ".join(pair.files)
    return None


def _has_changed(pair: Pair, plan: Plan, row: Mapping[str, Any] | None) -> bool:
    """Whether a pair differs from its row of the index; None if it was quarantined."""
    try:
        read = read_pair(pair, plan.source, plan.reading)
    except DataError:
        return row is not None
    images = {"rain": read.rain}
    if read.clean:
        images["clean"] = read.clean
    return row is None or any(
        row[f"{side}_sha256"] != hashlib.sha256(image.data).hexdigest()
        for side, image in images.items()
    )
