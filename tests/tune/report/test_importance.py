"""The importance of parameters, against values worked out by hand."""

from typing import Any

import numpy as np
import pytest

from derain.tune.report.importance import LEAST_POINTS, group_values, importance


def rows(values: list[tuple[dict[str, Any], float]]) -> list[dict[str, Any]]:
    return [{"params": params, "metrics": {"psnr_y": score}} for params, score in values]


def test_importance_is_the_share_of_variance_that_a_parameter_explains() -> None:
    # score = 3 a + b over a full 2 x 2 grid: the variances of the parts are 9 : 1
    grid = rows([({"a": a, "b": b}, 3.0 * a + b) for a in (0, 1) for b in (0, 1)] * 2)
    shares = importance(grid, "psnr_y")
    assert list(shares) == ["a", "b"]
    assert shares == pytest.approx({"a": 0.9, "b": 0.1})


def test_parameters_that_cannot_be_assessed_are_left_out() -> None:
    each_once = rows([({"name": f"x{at}", "same": 1}, float(at)) for at in range(8)])
    assert importance(each_once, "psnr_y") == {}
    alike = rows([({"a": a}, 30.0) for a in (0, 0, 1, 1) * 2])
    assert importance(alike, "psnr_y") == {}


def test_of_few_points_nothing_is_said() -> None:
    few = rows([({"a": at % 2}, float(at % 2)) for at in range(LEAST_POINTS)])
    assert importance(few, "psnr_y") == {"a": pytest.approx(1.0)}
    assert importance(few[1:], "psnr_y") == {}


def test_many_numbers_are_grouped_by_quartile() -> None:
    steps = rows([({"a": at / 100}, float(at // 10)) for at in range(40)])
    assert importance(steps, "psnr_y") == pytest.approx({"a": 1.0})
    noise = np.random.default_rng(0).normal(size=40)
    assert (
        importance(rows([({"a": at / 100}, n) for at, n in enumerate(noise)]), "psnr_y")["a"] < 0.3
    )


@pytest.mark.parametrize("count", [8, 16, 40])
def test_a_conditional_number_without_effect_explains_little(count: int) -> None:
    """Mean over 100 draws; each number as a group of its own would explain half or more."""
    shares = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        drawn = [rng.uniform() if at % 2 else None for at in range(count)]
        values = zip(({"start": value} for value in drawn), rng.normal(size=count), strict=True)
        shares.append(importance(rows(list(values)), "psnr_y")["start"])
    assert np.mean(shares) < 0.2


def test_a_conditional_number_with_an_effect_explains_it() -> None:
    trials = [({"start": at / 20}, at // 5 + 1.0) for at in range(20)] + [
        ({"start": None}, 9.0)
    ] * 5
    assert importance(rows(trials), "psnr_y") == pytest.approx({"start": 1.0})


def test_drawn_numbers_are_grouped_by_rank_and_none_is_its_own_group() -> None:
    numbers = np.random.default_rng(0).permutation(8) / 7
    found = group_values([*numbers, *[None] * 8])
    assert len(set(found[:8])) == 2
    assert set(found[8:]) == {"None"}
    assert {found[at] for at in range(8) if numbers[at] < 0.5}.isdisjoint(
        {found[at] for at in range(8) if numbers[at] > 0.5}
    )


def test_few_drawn_numbers_are_one_group_and_listed_ones_are_their_own() -> None:
    assert len(set(group_values([1.4, None, 2.3, None, 2.9, None]))) == 2
    assert group_values([1, 2, 1, 2]) == ["1", "2", "1", "2"]
