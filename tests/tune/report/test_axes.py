"""Labels and heights of a parameter's values, also for trials without a value."""

from typing import Any

import pytest

from derain.config.sweep import Dimension
from derain.tune.report.axes import label, place_values

RANGE = Dimension(uniform=(1.0, 3.0))


def test_numbers_are_to_scale_above_the_trials_without_one() -> None:
    heights, ticks = place_values([2.309401076758503, None, 1.4390123, None, 3.0], RANGE)
    assert heights[[1, 3]].tolist() == [0, 0]
    assert (heights[2], heights[4]) == (0.2, 1.0)
    assert heights[0] == pytest.approx(0.2 + 0.8 * (2.3094 - 1.43901) / (3 - 1.43901), abs=1e-4)
    assert ticks == {"none": 0.0, "1.44": 0.2, "2.31": heights[0], "3": 1.0}


def test_numbers_that_span_decades_are_logarithmic() -> None:
    heights, _ = place_values([1e-4, 1e-3, 1e-2], Dimension(loguniform=(1e-4, 1e-2)))
    assert heights == pytest.approx([0, 0.5, 1])


def test_labels_do_not_overlap() -> None:
    _, ticks = place_values([1.0, 1.01, 3.0], RANGE)
    assert list(ticks) == ["1", "3"]


def test_names_are_in_the_order_of_the_space() -> None:
    kinds = Dimension(choice={"flat": {"kind": "constant"}, "mix": {"kind": "convex_mix"}, "c": 1})
    heights, ticks = place_values([{"kind": "convex_mix"}, 1, {"kind": "constant"}, None], kinds)
    assert list(ticks) == ["none", "flat", "mix", "c"]
    assert heights == pytest.approx([2 / 3, 1, 1 / 3, 0])


@pytest.mark.parametrize(
    ("value", "written"),
    [(1.4390123, "1.44"), (123456, "123456"), (None, "none"), (True, "True")],
)
def test_a_value_without_a_name_is_shortened(value: Any, written: str) -> None:
    assert label(value, RANGE) == written


def test_a_listed_value_is_labelled_with_its_name_even_null() -> None:
    named = Dimension(grid={"plain": None, "ldfps": [0.1, 0.2]})
    assert (label(None, named), label([0.1, 0.2], named)) == ("plain", "ldfps")
    assert label("l1", Dimension(choice=["l1", "mse"])) == "l1"
