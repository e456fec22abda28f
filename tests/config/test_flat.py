"""Nested configs as dotted keys."""

import pytest

from derain.config.flat import covers, flattened


def test_nested_keys_are_joined_by_dots() -> None:
    tree = {"seed": 1, "train": {"lr": 0.1, "stages": [{"crop_px": 16}]}, "loss": {}}
    assert flattened(tree) == {
        "seed": 1,
        "train.lr": 0.1,
        "train.stages": [{"crop_px": 16}],
        "loss": {},
    }


def test_a_mapping_named_whole_is_one_value() -> None:
    tree = {"sweep": {"space": {"train.lr": {"grid": [1]}}, "seed": 2}}
    assert flattened(tree, whole=("sweep.space",)) == {
        "sweep.space": {"train.lr": {"grid": [1]}},
        "sweep.seed": 2,
    }


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        ("train", "train.lr", True),
        ("train.lr", "train.lr", True),
        ("train", "training.lr", False),
        ("train.lr", "train", False),
    ],
)
def test_a_key_covers_itself_and_what_is_below(name: str, key: str, expected: bool) -> None:
    assert covers(name, key) is expected
