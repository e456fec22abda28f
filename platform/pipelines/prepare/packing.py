"""Divide pairs into parts, by the sizes that they have once they are stored.

A part is one shard, except where images are stored in another format than that of the source:
their size is only estimated, and what is written decides whether a part becomes several shards.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from derain.data.images.kinds import ending
from derain.data.prepared.samples import json_length
from derain.data.prepared.shards import ShardLimits, packed_size
from derain.data.sources.pairs import Pair, group_samples
from derain.storage.remote import Stat

_GROWTH = {".jpg": 10.0, ".webp": 16.0}
_GROWTH_OF_OTHERS = 1.25
"""How many times larger an image is as PNG. Photographs as JPEG of quality 75 to 95 grow 4- to
8.5-fold, as WebP of 75 and 90 12- and 6-fold (medians); more here, because a shard that is not
full is better than a part whose last shard has few pairs."""


def limits_of(settings: Mapping[str, Any]) -> ShardLimits:
    """The limits of a shard, by the settings that the manifest records."""
    return ShardLimits(settings["shard_mib"] * 2**20, settings.get("pairs_per_shard"))


def packed(
    pairs: Sequence[Pair],
    stats: Mapping[str, Stat],
    limits: ShardLimits,
    *,
    as_png: bool = False,
) -> Iterator[list[Pair]]:
    """The parts: as many consecutive samples as fit into a shard, but at least one.

    `as_png`: all images are stored as PNG.
    """
    part: list[Pair] = []
    filled = 0
    for together in group_samples(pairs):
        size = _stored_size(together, stats, as_png)
        if part and not limits.allow(filled + size, len(part) + len(together)):
            yield part
            part, filled = [], 0
        part += together
        filled += size
    if part:
        yield part


def _stored_size(pairs: Sequence[Pair], stats: Mapping[str, Stat], as_png: bool) -> int:
    """Bytes that a sample takes in a tar: an upper limit if the bytes of its images pass through
    unchanged, otherwise an estimate."""
    lengths = {name: stats[name].st_size for pair in pairs for name in pair.files}
    if as_png or pairs[0].clean_half:
        grown = {name: length * _growth(name) for name, length in lengths.items()}
        lengths = {name: round(length) for name, length in grown.items()}
    halves = list(lengths.values())
    if pairs[0].clean_half:
        halves = [length // 2 for length in halves for _ in range(2)]
    return packed_size([json_length(pairs), *halves])


def _growth(name: str) -> float:
    return _GROWTH.get(ending(name), _GROWTH_OF_OTHERS)
