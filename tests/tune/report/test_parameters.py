"""Names, heights and groups of a parameter's values; a trial that has none is a kind of its own."""

from typing import Any

import numpy as np
import pytest

from derain.config.sweep import Dimension
from derain.tune.report.parameters import groups, label, places

RANGE = Dimension(uniform=(1.0, 3.0))


def test_numbers_are_to_scale_and_stand_above_the_trials_that_have_none() -> None:
    heights, ticks = places([2.309401076758503, None, 1.4390123, None, 3.0], RANGE)
    assert heights[[1, 3]].tolist() == [0, 0]
    assert (heights[2], heights[4]) == (0.2, 1.0)
    assert heights[0] == pytest.approx(0.2 + 0.8 * (2.3094 - 1.43901) / (3 - 1.43901), abs=1e-4)
    assert ticks == {"none": 0.0, "1.44": 0.2, "2.31": heights[0], "3": 1.0}


def test_numbers_that_span_decades_are_logarithmic() -> None:
    heights, _ = places([1e-4, 1e-3, 1e-2], Dimension(loguniform=(1e-4, 1e-2)))
    assert heights == pytest.approx([0, 0.5, 1])


def test_labels_do_not_lie_on_each_other() -> None:
    _, ticks = places([1.0, 1.01, 3.0], RANGE)
    assert list(ticks) == ["1", "3"]


def test_words_stand_in_the_order_of_the_space() -> None:
    kinds = Dimension(choice={"flat": {"kind": "constant"}, "mix": {"kind": "convex_mix"}, "c": 1})
    heights, ticks = places([{"kind": "convex_mix"}, 1, {"kind": "constant"}, None], kinds)
    assert list(ticks) == ["none", "flat", "mix", "c"]
    assert heights == pytest.approx([2 / 3, 1, 1 / 3, 0])


@pytest.mark.parametrize(
    ("value", "written"),
    [(1.4390123, "1.44"), (123456, "123456"), (None, "none"), (True, "True")],
)
def test_a_value_without_a_name_is_short(value: Any, written: str) -> None:
    assert label(value, RANGE) == written


def test_a_listed_value_has_its_name_null_too() -> None:
    named = Dimension(grid={"plain": None, "ldfps": [0.1, 0.2]})
    assert (label(None, named), label([0.1, 0.2], named)) == ("plain", "ldfps")
    assert label("l1", Dimension(choice=["l1", "mse"])) == "l1"


def test_drawn_numbers_are_grouped_by_rank_and_none_is_apart() -> None:
    numbers = np.random.default_rng(0).permutation(8) / 7
    found = groups([*numbers, *[None] * 8])
    assert len(set(found[:8])) == 2
    assert set(found[8:]) == {"None"}
    assert {found[at] for at in range(8) if numbers[at] < 0.5}.isdisjoint(
        {found[at] for at in range(8) if numbers[at] > 0.5}
    )


def test_few_drawn_numbers_are_one_group_and_listed_ones_are_themselves() -> None:
    assert len(set(groups([1.4, None, 2.3, None, 2.9, None]))) == 2
    assert groups([1, 2, 1, 2]) == ["1", "2", "1", "2"]
