"""Prepared datasets of equal last folder name keep separate names."""

from derain.data.prepared.naming import distinct_names


def test_names_are_as_short_as_they_can_be() -> None:
    assert distinct_names(["prepared/test"]) == ["test"]
    assert distinct_names(["a/test", "b/test", "c/val"]) == ["a/test", "b/test", "val"]
    assert distinct_names(["x/a/test", "y/a/test", "z/test"]) == ["x/a/test", "y/a/test", "z/test"]
    assert distinct_names(["test", "/data/test"]) == ["test", "data/test"]
    assert distinct_names(["s3://one/test", "s3://two/test"]) == ["one/test", "two/test"]
    assert distinct_names(["a/test", "a/test"]) == ["test", "test"]
