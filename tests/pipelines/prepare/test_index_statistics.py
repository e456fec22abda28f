"""Statistics over all shards: copies, pairs without rain, samples of different sizes."""

import hashlib
import tracemalloc
from collections import deque

import pyarrow as pa

from benchmarks._small import _index_rows
from derain.data.prepared.index import index_table
from derain.pipelines.prepare.index_statistics import IndexStatistics


def row(rain: str, clean: str | None, name: str = "", sample: int = 0) -> dict[str, object]:
    """A pair, given by the contents of its images; `name` is the name of the clean file."""
    digests = [text and hashlib.sha256(text.encode()).hexdigest() for text in (rain, clean)]
    return {
        "rain_source": f"rain/{rain}",
        "rain_sha256": digests[0],
        "clean_source": name or clean,
        "clean_sha256": digests[1],
        "json_offset": sample,
    }


def counted(*shards: list[dict[str, object]]) -> IndexStatistics:
    tables = [index_table(rows) for rows in shards]
    statistics = IndexStatistics()
    assert pa.concat_tables(statistics.counting(tables)) == pa.concat_tables(tables)
    return statistics


def test_ordinary_datasets_get_no_notes() -> None:
    statistics = counted([row("a", "A", sample=1), row("b", "A", sample=2)], [], [row("c", "A")])
    assert (list(statistics.notes()), statistics.repeated()) == ([], set())
    assert list(counted([row("a", None), row("b", None, sample=1)]).notes()) == []


def test_equal_rainy_images_are_found() -> None:
    digest = hashlib.sha256(b"a").hexdigest()
    assert counted([row("a", "A")], [row("b", "B"), row("a", "C")]).repeated() == {
        int(digest[:16], 16)
    }


def test_one_clean_image_under_several_names_is_noted() -> None:
    statistics = counted([row("a", "A", "x/1"), row("b", "A", "x/1", 9)], [row("c", "A", "x/2")])
    (note,) = statistics.notes()
    assert note.startswith("2 clean files hold 1 image, equal byte for byte: --share")


def test_a_pair_without_rain_is_noted() -> None:
    (note,) = counted([row("a", "A", sample=1), row("B", "B")], [row("C", "C")]).notes()
    assert note.endswith("byte for byte: 2, such as rain/B.")


def test_samples_of_different_sizes_are_noted() -> None:
    statistics = counted([row(f"a{n}", "A") for n in range(3)], [row("b", "B")])
    (note,) = statistics.notes()
    assert note.startswith("A clean image has 1 to 3 rainy ones")


def kept_by_statistics(shards: int) -> int:
    """Bytes that counting so many shards of 500 pairs leaves in memory."""
    tables = (_index_rows(500 * number, 500, f"many-{number:06d}.tar") for number in range(shards))
    tracemalloc.start()
    statistics = IndexStatistics()
    deque(statistics.counting(tables), maxlen=0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return kept


def test_joining_the_index_keeps_16_bytes_a_pair() -> None:
    few, many = kept_by_statistics(4), kept_by_statistics(20)
    assert 16 <= (many - few) / (16 * 500) < 18
