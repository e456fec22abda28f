"""Pairs that passed `prepare` and cannot be decoded: each costs itself, not the dataset.

Such a pair is noted beside the cache file. Where pixels are read, the next pair that can be decoded
takes its place, so that the number of pairs, and with it the order of an epoch, stays the same.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from derain.data.loading.cache_layout import CacheLayout
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError
from derain.storage.atomic import write_text

log = logging.getLogger(__name__)

Reasons = Mapping[int, str]
"""The numbers of pairs that cannot be decoded, and why."""

SHOWN = 5


def pairs_of(layout: CacheLayout, failed: Mapping[int, str]) -> dict[int, str]:
    """The pairs with an image that failed; `failed` has reasons by the image's offset in the cache.

    Pairs may share a clean image.
    """
    found: dict[int, str] = {}
    for offsets in (layout.rain, layout.clean):
        for pair in np.flatnonzero(np.isin(offsets, list(failed))).tolist():
            found.setdefault(pair, failed[int(offsets[pair])])
    return dict(sorted(found.items()))


def substitutes(count: int, left_out: Reasons) -> dict[int, int]:
    """For each pair that is left out, of `count`, the next usable one, whose pixels are read."""
    if not left_out:
        return {}
    found = {count: next(pair for pair in range(count) if pair not in left_out)}
    for pair in sorted(left_out, reverse=True):
        found[pair] = found.get(pair + 1, pair + 1)
    del found[count]
    return found


def warn(prepared: Prepared, left_out: Reasons) -> None:
    """Log the pairs that are left out. Raises DataError if none is left."""
    if not left_out:
        return
    reasons = list(left_out.values())
    if len(left_out) == len(prepared):
        raise DataError(f"{prepared.folder}: no pair can be decoded: {reasons[0]}")
    log.warning(
        "cache: %s: %d of %d pairs cannot be decoded and are left out: %s. `derainctl prepare "
        "--decode` finds them.",
        prepared.folder, len(left_out), len(prepared), "; ".join(reasons[:SHOWN]),
    )  # fmt: skip


def note_path(cache: Path) -> Path:
    """The file beside a cache that lists its pairs without pixels."""
    return cache.with_suffix(".left_out.json")


def write_note(cache: Path, left_out: Reasons) -> None:
    """Write the list beside a cache, before the cache gets its name; no file for an empty one."""
    if left_out:
        write_text(note_path(cache), json.dumps(dict(left_out), indent=1) + "\n")
    else:
        note_path(cache).unlink(missing_ok=True)


def read_note(cache: Path) -> dict[int, str]:
    """The list beside a cache; empty without one."""
    try:
        text = note_path(cache).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        return {int(pair): str(reason) for pair, reason in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError):
        raise DataError(
            f"{note_path(cache)}: damaged. Remove it and {cache}: they are built again."
        ) from None
