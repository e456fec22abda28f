"""manifest.json: the bytes that a plain encoder writes; what reading it costs for each shard."""

import hashlib
import json
import tracemalloc
from dataclasses import asdict
from typing import Any

import pytest

from derain.data.prepared.manifest import Manifest, Quarantined, ShardEntry, parse_manifest
from derain.errors import DataError


def manifest(shards: int, name: str = "many") -> Manifest:
    entries = (
        ShardEntry(f"{name}-{number:06d}.tar", 10**8 + number, 500, f"{number:064x}")
        for number in range(shards)
    )
    odd = {"shards": [], "inner": {"shards": []}, "text": '\n  "shards": []'}
    left_out = (Quarantined("a.png", '"shards": []\u2028'),)
    return Manifest("paired", "train", 500 * shards, 7, tuple(entries), "ab", "", odd, left_out)


@pytest.mark.parametrize("name", ["many", 'quote" and \\', "é},\n      {"])
@pytest.mark.parametrize("shards", [0, 1, 3])
def test_the_bytes_are_those_of_a_plain_encoder(shards: int, name: str) -> None:
    made = manifest(shards, name)

    def plain(tree: object) -> bytes:
        return (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode()

    checksum = hashlib.sha256(plain(asdict(made))).hexdigest()
    expected = plain({**asdict(made), "checksum": checksum})
    assert made.to_bytes() == expected
    assert made.sha256() == hashlib.sha256(expected).hexdigest()
    assert parse_manifest(expected, "manifest.json") == made


def test_every_changed_character_is_noticed() -> None:
    data = manifest(2).to_bytes()
    for at in range(len(data)):
        with pytest.raises(DataError):
            parse_manifest(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "manifest.json")


def peak(shards: int) -> int:
    data = manifest(shards).to_bytes()
    parse_manifest.cache_clear()
    tracemalloc.start()
    parse_manifest(data, "manifest.json")
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_a_shard_costs_two_kilobytes_while_a_manifest_is_read() -> None:
    """28 MB for ten million pairs in shards of 500."""
    assert (peak(3_000) - peak(1_000)) / 2_000 < 2_500


def test_equal_bytes_are_parsed_once() -> None:
    """A worker opens a dataset eight times."""
    data = manifest(3).to_bytes()
    first = parse_manifest(data, "manifest.json")
    assert parse_manifest(bytes(bytearray(data)), "manifest.json") is first


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "[]", "null", ""])
def test_json_of_any_kind_is_no_manifest(text: str) -> None:
    with pytest.raises(DataError, match=r"m\.json: not a manifest"):
        parse_manifest(text.encode(), "m.json")


@pytest.mark.parametrize(
    "change",
    [
        {"pairs": "2"},
        {"bytes": True},
        {"bytes": -1},
        {"dataset": None},
        {"notes": [5]},
        {"settings": []},
        {"duplicates": [[1]]},
        {"quarantined": [{"path": 1, "reason": "x"}]},
        *({"shards": [{"name": name}]} for name in ("../x", "a/b", "", 5)),
        {"shards": [{"bytes": 1.5}]},
    ],
)
def test_values_of_another_type_are_refused_though_the_checksum_is_right(
    change: dict[str, Any],
) -> None:
    tree = json.loads(manifest(1).to_bytes())
    del tree["checksum"]
    (shard,) = tree["shards"]
    tree |= change
    tree["shards"] = [{**shard, **item} for item in tree["shards"]]
    text = json.dumps(tree, indent=2, sort_keys=True) + "\n"
    tree["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    data = (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode()
    with pytest.raises(DataError, match=r"m\.json: not a manifest"):
        parse_manifest(data, "m.json")
