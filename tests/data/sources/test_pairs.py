"""Pairs: their keys, and their grouping into samples."""

import pytest

from derain.data.sources.pairs import Pair, group_by_scene, group_samples, unique_keys
from derain.errors import DataError


def test_keys_have_no_dots_and_do_not_collide() -> None:
    keys = unique_keys(["norain-1.5x", "norain-1 5x", "norain-1-5x", "é", "x" * 200])
    assert len(set(keys)) == 5
    assert all("." not in key and len(key) <= 80 for key in keys)


def test_pairs_of_one_clean_image_are_one_sample() -> None:
    cleans = ["gt/a.b/1.jpg", "gt/a.b/1.jpg", "gt/a/1.jpg", "gt/a-b/1.jpg"]
    pairs = [Pair(str(number), f"in/{number}.jpg", clean) for number, clean in enumerate(cleans)]
    together = [[pair.key for pair in sample] for sample in group_samples(group_by_scene(pairs))]
    assert together == [["0", "1"], ["2"], ["3"]]
    assert [pair.sample for pair in group_by_scene(pairs)] == ["a-b-1", "a-b-1", "a-1", "a-b-1-2"]
    assert [[pair.key] for pair in pairs] == [
        [it.key for it in one] for one in group_samples(pairs)
    ]


@pytest.mark.parametrize("clean", [None, "both.png"])
def test_scenes_need_clean_files(clean: str | None) -> None:
    with pytest.raises(
        DataError, match=r"both\.png: --clean-once needs clean images in files of their own"
    ):
        group_by_scene([Pair("both", "both.png", clean)])
