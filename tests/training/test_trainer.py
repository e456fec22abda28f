"""The learning rate and the gradients of a step; test_loop.py tests whole runs."""

from pathlib import Path

import pytest

from derain.data.loading.loader import Position
from derain.training.process.device import to_device
from derain.training.trainer import learning_rate
from tests.tiny import config, loader, make_run


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


def test_gradients_have_the_memory_layout_of_their_weights(tmp_path: Path) -> None:
    """Also of 1 x 1 weights, whose NHWC and NCHW layouts differ in their strides only."""
    network = {"name": "nafnet", "width": 4, "encoder_blocks": [1], "decoder_blocks": [1]}
    values = {"model": network, "loss": {"perceptual": "none"}}
    run_config = config(tmp_path).replaced(values, "test")
    trainer = make_run(run_config, []).trainer
    trainer.step(0, to_device(loader(run_config).batch(Position()), run_config.train))
    trained = [weight for weight in trainer.network.parameters() if weight.requires_grad]
    assert any(weight.shape[2:] == (1, 1) for weight in trained)
    assert [weight.grad.stride() for weight in trained] == [w.stride() for w in trained]
