"""The rate of a step; what a step does is seen in whole runs (`test_loop.py`)."""

from pathlib import Path

import pytest

from derain.trainer import learning_rate
from tests.tiny import config


def test_learning_rate_warms_up_and_follows_a_cosine(tmp_path: Path) -> None:
    train = config(tmp_path, steps=110, warmup_steps=10, lr=1.0, lr_min=0.2).train
    rates = [learning_rate(train, step) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[60] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2, abs=1e-3)
    assert max(rates) == rates[10] == pytest.approx(1.0)
