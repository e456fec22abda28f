"""`leaderboard`: all registered versions, ranked among those measured on the same images."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from derain.pipelines.leaderboard.entries import Entry, entries_of
from derain.pipelines.leaderboard.leak_check import LeakCheck, LeakChecks
from derain.tracking.lineage import RecordedDataset, lineages, number
from derain.tracking.store import tracking_uri, without_password

Row = dict[str, Any]
SKIPPED = LeakCheck(None, reason="--no-leaks")
COUNTED = ("trained_parameters", "frozen_parameters", "macs")


def leaderboard(*, check_leaks: bool = True, uri: str | None = None) -> dict[str, Any]:
    """All registered versions of a store by protocol and images; what `--json` prints.

    `groups` have `protocol`, `sha256` of the images, `datasets` (names) and `rows`, best PSNR
    first; only rows of one group are comparable. `unmeasured` lists versions without metrics. With
    `check_leaks` the training images of each version are compared with those of its group, see
    `leak_check`; that takes minutes the first time, for large datasets.

    Raises StorageError if the store does not answer.
    """
    uri = uri or tracking_uri()
    groups: dict[tuple[str, str], list[Entry]] = {}
    unmeasured = []
    for lineage in lineages(uri):
        entries = list(entries_of(lineage))
        for entry in entries:
            groups.setdefault((entry.protocol, entry.sha256), []).append(entry)
        if not entries:
            unmeasured.append({"name": lineage.version.name, "version": lineage.version.version})
    checks = LeakChecks() if check_leaks else None
    return {
        "store": without_password(uri),
        "groups": [
            _group(protocol, sha256, entries, checks)
            for (protocol, sha256), entries in sorted(groups.items(), key=_larger_first)
        ],
        "unmeasured": unmeasured,
    }


def _larger_first(group: tuple[tuple[str, str], Sequence[Entry]]) -> tuple[int, tuple[str, str]]:
    return -len(group[1]), group[0]


def _group(
    protocol: str, sha256: str, entries: Iterable[Entry], checks: LeakChecks | None
) -> dict[str, Any]:
    ordered = sorted(entries, key=lambda entry: -entry.psnr)
    named = (_names(entry.measured_on) for entry in ordered)
    rows = [_row(entry, checks) for entry in ordered]
    for row in rows:  # equal metrics share a rank
        row["rank"] = 1 + sum(_psnr(other) > _psnr(row) for other in rows)
    return {
        "protocol": protocol,
        "sha256": sha256,
        "datasets": next((names for names in named if names), []),
        "rows": rows,
    }


def _row(entry: Entry, checks: LeakChecks | None) -> Row:
    """One line of the leaderboard; what was not recorded is None."""
    lineage = entry.lineage
    version, tags = lineage.version, lineage.version.tags
    leaks = checks.of(lineage, entry.measured_on) if checks else SKIPPED
    return {
        "rank": 0,
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "role": entry.role,
        "metrics": dict(entry.metrics),
        "input": dict(entry.input),
        **{key: _number(tags, key, int) for key in COUNTED},
        "train_seconds": _number(tags, "train_seconds", float),
        "profile": tags.get("profile") or None,
        "trained_on": _names(lineage.role("train")),
        "train_manifest_sha256": _digests(tags),
        "leaks": {"leaked": leaks.leaked, "images": leaks.images, "reason": leaks.reason or None},
    }


def _psnr(row: Row) -> float:
    return next(iter(row["metrics"].values()))


def _number(tags: Mapping[str, str], key: str, kind: type[int] | type[float]) -> float | None:
    found = number(tags.get(key))
    return kind(found) if found is not None and math.isfinite(found) else None


def _names(datasets: Iterable[RecordedDataset]) -> list[str]:
    return [dataset.name for dataset in datasets]


def _digests(tags: Mapping[str, str]) -> list[str]:
    return [digest for digest in tags.get("train_manifest_sha256", "").split(",") if digest]
