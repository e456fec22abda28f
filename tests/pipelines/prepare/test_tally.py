"""What passes is counted over the borders of shards: copies, unchanged pairs, uneven samples."""

import hashlib

import pyarrow as pa

from derain.data.prepared.manifest import table_of
from derain.pipelines.prepare.tally import Tally


def row(rain: str, clean: str | None, name: str = "", sample: int = 0) -> dict[str, object]:
    """A pair by the contents of its images; `name` is the clean file's."""
    digests = [text and hashlib.sha256(text.encode()).hexdigest() for text in (rain, clean)]
    return {
        "rain_source": f"rain/{rain}",
        "rain_sha256": digests[0],
        "clean_source": name or clean,
        "clean_sha256": digests[1],
        "json_offset": sample,
    }


def tallied(*shards: list[dict[str, object]]) -> Tally:
    tables = [table_of(rows) for rows in shards]
    tally = Tally()
    assert pa.concat_tables(tally.passing(tables)) == pa.concat_tables(tables)
    return tally


def test_what_is_usual_is_not_noted() -> None:
    tally = tallied([row("a", "A", sample=1), row("b", "A", sample=2)], [], [row("c", "A")])
    assert (list(tally.notes()), tally.repeated()) == ([], set())
    assert list(tallied([row("a", None), row("b", None, sample=1)]).notes()) == []


def test_equal_rainy_images_are_told() -> None:
    digest = hashlib.sha256(b"a").hexdigest()
    assert tallied([row("a", "A")], [row("b", "B"), row("a", "C")]).repeated() == {
        int(digest[:16], 16)
    }


def test_one_clean_image_under_several_names_is_noted() -> None:
    tally = tallied([row("a", "A", "x/1"), row("b", "A", "x/1", 9)], [row("c", "A", "x/2")])
    (note,) = tally.notes()
    assert note.startswith("2 clean images are 1, each under several names: --share")


def test_a_pair_without_rain_is_noted() -> None:
    (note,) = tallied([row("a", "A", sample=1), row("B", "B")], [row("C", "C")]).notes()
    assert note.endswith("byte for byte: 2, such as rain/B.")


def test_samples_of_unequal_sizes_are_noted() -> None:
    tally = tallied([row(f"a{n}", "A") for n in range(3)], [row("b", "B")])
    (note,) = tally.notes()
    assert note.startswith("A clean image has 1 to 3 rainy ones")
