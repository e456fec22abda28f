"""Pairs: their keys, and which of them are one sample."""

import pytest

from derain.data.sources.pairs import Pair, in_scenes, samples, slugs
from derain.errors import DataError


def test_keys_have_no_dots_and_do_not_collide() -> None:
    keys = slugs(["norain-1.5x", "norain-1 5x", "norain-1-5x", "é", "x" * 200])
    assert len(set(keys)) == 5
    assert all("." not in key and len(key) <= 80 for key in keys)


def test_pairs_of_one_clean_image_are_one_sample() -> None:
    cleans = ["gt/a.b/1.jpg", "gt/a.b/1.jpg", "gt/a/1.jpg", "gt/a-b/1.jpg"]
    pairs = [Pair(str(number), f"in/{number}.jpg", clean) for number, clean in enumerate(cleans)]
    together = [[pair.key for pair in sample] for sample in samples(in_scenes(pairs))]
    assert together == [["0", "1"], ["2"], ["3"]]
    assert [pair.sample for pair in in_scenes(pairs)] == ["a-b-1", "a-b-1", "a-1", "a-b-1-2"]
    assert [[pair.key] for pair in pairs] == [[it.key for it in one] for one in samples(pairs)]


@pytest.mark.parametrize("clean", [None, "both.png"])
def test_without_a_clean_file_there_is_no_scene(clean: str | None) -> None:
    with pytest.raises(DataError, match=r"both\.png: has no clean image in a file of its own"):
        in_scenes([Pair("both", "both.png", clean)])
