"""The learning rate of each step: warm-up, cosine, and a schedule in its place."""

from pathlib import Path

import pytest

from derain.training.optimisation.learning_rate import learning_rate
from tests.tiny import config


def test_learning_rate_warms_up_and_follows_a_cosine(tmp_path: Path) -> None:
    train = config(tmp_path, steps=110, warmup_steps=10, lr=1.0, lr_min=0.2).train
    rates = [learning_rate(train, step) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[60] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2, abs=1e-3)
    assert max(rates) == rates[10] == pytest.approx(1.0)


@pytest.mark.parametrize("warmup", [0, 10, 120])
def test_the_cosine_starts_where_the_config_says(tmp_path: Path, warmup: int) -> None:
    """At 92 of 300 steps, as in Restormer's recipe; never before the warm-up ends."""
    values = {"steps": 300, "lr": 1.0, "lr_min": 0.2, "constant_share": 0.306667}
    train = config(tmp_path, warmup_steps=warmup, **values).train
    rates = [learning_rate(train, step) for step in range(300)]
    begin = max(warmup, 92)
    assert rates[warmup : begin + 1] == [1.0] * (begin + 1 - warmup)
    assert rates[begin + 1] < 1.0
    assert rates[(begin + 300) // 2] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2, abs=1e-3)


def test_a_schedule_takes_the_place_of_the_cosine_after_the_warm_up(tmp_path: Path) -> None:
    train = config(tmp_path, steps=10, warmup_steps=2, lr=0.5, lr_min=0.2).train
    rates = [learning_rate(train, step, lambda at, of: 1 - at / of) for step in range(10)]
    assert rates == [0.25, 0.5, *(0.5 * (1 - step / 10) for step in range(2, 10))]
