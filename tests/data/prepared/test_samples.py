"""A sample's JSON member is not larger than the plan assumes; remarks on its pairs are counted."""

from pathlib import Path

import pytest

from derain.data.prepared import samples
from derain.data.prepared.reading import INSPECT, PairImages, read_pair
from derain.data.prepared.remarks import joined, notes
from derain.data.prepared.samples import SampleReader, json_length
from derain.data.prepared.shards import write_shards
from derain.data.sources.discover import find_pairs
from derain.data.sources.pairs import Pair, group_samples
from tests.folders import PairedFolder, write_scenes


@pytest.mark.parametrize("once", [False, True])
def test_the_planned_json_is_hardly_larger_than_the_written(tmp_path: Path, once: bool) -> None:
    source = write_scenes(tmp_path / "source", scenes=2, rains=12, width=24, height=16)
    pairs = find_pairs("rain14000", source, clean_once=once).pairs
    written = SampleReader(source, INSPECT).read(pairs)
    for sample, together in zip(written, group_samples(pairs), strict=True):
        actual, planned = sample.lengths()[-1], json_length(together)
        assert actual < planned < actual + 16 + len(together)


def remarking(pair: Pair, *rest: object, **options: object) -> PairImages:
    """`read_pair`, with a remark on each pair and another on every second."""
    read = read_pair(pair, *rest, **options)  # type: ignore[arg-type]
    odd = ("Odd numbers",) if int(pair.key) % 2 else ()
    return PairImages(read.pair, read.rain, read.clean, ("Of noise", *odd))


def test_remarks_on_written_pairs_are_counted(
    paired_folder: PairedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "read_pair", remarking)
    source = paired_folder(5)
    (source / "rain/000.png").write_bytes(b"not an image")
    pairs = find_pairs("paired", source).pairs
    written = write_shards(pairs, source, tmp_path / "a.tar")
    assert written.remarks == {
        "Of noise": (4, "rain/001.png"),
        "Odd numbers": (2, "rain/001.png"),
    }


def test_remarks_become_notes_in_a_stable_order() -> None:
    parts = [{"B": (2, "x")}, {"A": (1, "y"), "B": (1_000, "z")}, {}]
    expected = ["A: 1, such as y.", "B: 1,002, such as x."]
    assert notes(joined(parts)) == expected
