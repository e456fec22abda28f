"""Ranking, paired differences and the Pareto front of metric and costs."""

import math
from typing import Any

import pytest
from scipy import stats

from derain.tune.report.compare import Difference, paired, pareto_front, ranked, standings


def row(point: str, seed: int, psnr: float, **costs: float) -> dict[str, Any]:
    return {
        "name": f"{point},seed={seed}",
        "point": point,
        "params": {"train.lr": point},
        "seed": seed,
        "metrics": {"psnr_y": psnr},
        "costs": costs,
    }


def test_points_are_ranked_by_their_mean_and_trials_within_a_point_by_their_own() -> None:
    rows = [row("a", 0, 30.0), row("a", 1, 20.0), row("b", 0, 26.0), row("b", 1, 27.0)]
    assert [r["name"] for r in ranked(rows, "psnr_y", {})] == [
        "b,seed=1", "b,seed=0", "a,seed=0", "a,seed=1",
    ]  # fmt: skip


def test_a_point_with_a_missing_repeat_is_ranked_last() -> None:
    rows = [row("lucky", 0, 40.0), row("whole", 0, 26.0), row("whole", 1, 27.0)]
    assert [r["point"] for r in ranked(rows, "psnr_y", {})] == ["whole", "whole", "lucky"]


def test_a_trial_over_a_limit_is_ranked_last() -> None:
    rows = [row("large", 0, 40.0, parameters=9e6), row("small", 0, 26.0, parameters=1e6)]
    limits = {"parameters": 2e6}
    assert [r["point"] for r in ranked(rows, "psnr_y", limits)] == ["small", "large"]
    assert [r["point"] for r in ranked(rows, "psnr_y", {})] == ["large", "small"]


def test_the_difference_is_paired_by_seed() -> None:
    noise = [0.0, 5.0, -3.0, 2.0]  # the effect of the seed on all trials
    best = [row("a", seed, 30 + n + 0.1) for seed, n in enumerate(noise)]
    other = [row("b", seed, 30 + n - 0.01 * seed) for seed, n in enumerate(noise)]
    found = paired(best, other, "psnr_y")
    differences = [0.1 + 0.01 * seed for seed in range(4)]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert found is not None
    assert found.mean == pytest.approx(0.115)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.significant


def test_a_difference_within_the_spread_of_the_seeds_is_not_significant() -> None:
    best = [row("a", seed, 30 + offset) for seed, offset in enumerate([0.5, -0.4, 0.3])]
    other = [row("b", seed, 30.0) for seed in range(3)]
    found = paired(best, other, "psnr_y")
    assert found is not None
    assert found.low < 0 < found.high
    assert not found.significant


def test_equal_differences_have_an_interval_of_length_0() -> None:
    best = [row("a", seed, 31.0 + seed) for seed in range(3)]
    other = [row("b", seed, 30.0 + seed) for seed in range(3)]
    assert paired(best, other, "psnr_y") == Difference(1.0, 1.0, 1.0)


def test_one_shared_seed_gives_no_difference() -> None:
    assert paired([row("a", 0, 30.0), row("a", 1, 31.0)], [row("b", 0, 29.0)], "psnr_y") is None


def test_standings_list_each_point_once_with_its_spread() -> None:
    rows = [row("a", 0, 30.0), row("a", 1, 32.0), row("b", 0, 29.0), row("b", 1, 30.9)]
    best, second = standings(ranked(rows, "psnr_y", {}), "psnr_y")
    assert (best["point"], best["mean"], best["repeats"]) == ("a", 31.0, 2)
    assert best["sd"] == pytest.approx(math.sqrt(2))
    assert best["difference"] is None
    assert second["difference"]["mean"] == pytest.approx(1.05)
    assert second["told_apart"]


def test_the_pareto_front_has_the_trials_that_none_dominates() -> None:
    rows = [
        row("best", 0, 32.0, parameters=9.0),
        row("cheap", 0, 30.0, parameters=1.0),
        row("between", 0, 31.0, parameters=5.0),
        row("dominated", 0, 30.5, parameters=6.0),
    ]
    names = ["best,seed=0", "cheap,seed=0", "between,seed=0"]
    assert pareto_front(rows, "psnr_y", ["parameters"], {}) == names
    assert pareto_front(rows, "psnr_y", ["parameters"], {"parameters": 5.5}) == names[1:]
    assert pareto_front(rows, "psnr_y", [], {}) == ["best,seed=0"]
