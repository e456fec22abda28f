"""A warning where the moving average of the weights is judged before it has forgotten the first."""

import re
from typing import Any

import pytest

from derain.config import Config
from derain.config.training import TrainConfig
from derain.training.averaging import _largest, warn_of_initial_weights
from derain.tune.search.algorithms import first_comparison


@pytest.mark.parametrize(
    ("train", "judged_at", "said"),
    [
        ({"steps": 200, "ema_decay": 0.999}, None, "at step 200, .* 82 % of it"),
        ({"steps": 200, "ema_decay": 0.999}, None, "train.ema_decay=0.977 or less"),
        ({"steps": 200, "ema_decay": 0.9}, None, ""),
        ({"steps": 200, "ema_decay": None}, None, ""),
        ({"steps": 200, "ema_decay": 0.97}, 125, "at step 125, .* 2 % of it"),
        ({"steps": 99, "ema_decay": 0.9, "eval_every_steps": 20}, None, ""),
        (
            {"steps": 99, "ema_decay": 0.9, "eval_every_steps": 20, "use_checkpoint": "best"},
            None,
            "at step 20, .* 12 %",
        ),
        (
            {"steps": 99, "ema_decay": 0.9, "eval_every_steps": 20, "patience_evals": 2},
            None,
            "at step 20",
        ),
    ],
)
def test_an_average_that_is_judged_too_early_is_named(
    train: dict[str, Any], judged_at: int | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_initial_weights([TrainConfig.model_validate(train)] * 3, judged_at)
    assert len(caplog.messages) == bool(said)
    if said:
        assert re.search(said, caplog.messages[0])


@pytest.mark.parametrize("steps", [1, 2, 20, 1000, 50_000])
def test_the_suggested_decay_has_forgotten_the_initial_weights(steps: int) -> None:
    assert _largest(steps) ** steps <= 0.0101
    assert float(f"{_largest(steps):g}") == _largest(steps)


@pytest.mark.parametrize(
    ("sweep", "step"),
    [
        ({"search": "asha", "asha": {"first_steps": 50}}, 50),
        ({"search": "asha"}, 62),
        ({"search": "grid"}, None),
    ],
)
def test_a_search_compares_trials_before_their_end(sweep: dict[str, Any], step: int) -> None:
    tree = {
        "name": "search",
        "model": {"name": "prenet"},
        "train": {"steps": 1000},
        "sweep": {"space": {"train.lr": {"grid": [1e-3]}}, **sweep},
    }
    assert first_comparison(Config.model_validate(tree)) == step
