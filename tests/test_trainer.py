"""What a step is made of: the device, the rate, what is trained and what is saved."""

from pathlib import Path

import pytest
import torch

from derain import checkpoint
from derain.errors import UsageError, WeightsError
from derain.loop import Outcome
from derain.trainer import build_network, learning_rate, pick_device, restore_network
from tests.tiny import config, run


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(config(tmp_path_factory.mktemp("done"), steps=3))


def test_frozen_parts_are_not_in_the_checkpoint_and_do_not_change(
    done: Outcome,
) -> None:
    saved = checkpoint.load(done.checkpoint)
    assert not [name for name in saved.model() if name.startswith("encoder.")]
    assert saved.state.frozen
    restored = restore_network(saved)
    fresh = build_network(saved.config)
    assert torch.equal(restored.encoder.resnet.conv1.weight, fresh.encoder.resnet.conv1.weight)


def test_the_average_is_what_is_used(done: Outcome) -> None:
    saved = checkpoint.load(done.checkpoint)
    average = saved.ema()
    assert average is not None
    restored = restore_network(saved).state_dict()
    assert all(torch.equal(restored[name], tensor) for name, tensor in average.items())
    assert any(not torch.equal(saved.model()[name], tensor) for name, tensor in average.items())


def test_other_frozen_weights_are_refused(done: Outcome) -> None:
    saved = checkpoint.load(done.checkpoint)
    other = saved.config.replaced({"model.encoder_seed": 5}, "test")
    with pytest.raises(WeightsError, match="frozen parts"):
        restore_network(checkpoint.Checkpoint(saved.folder, saved.state, other))


def test_a_missing_gpu_is_an_error_and_not_a_cpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        assert pick_device(config(tmp_path, device="cuda").train).type == "cuda"
    else:
        with pytest.raises(UsageError, match="no CUDA device"):
            pick_device(config(tmp_path, device="cuda").train)


def test_learning_rate_warms_up_and_follows_a_cosine(tmp_path: Path) -> None:
    train = config(tmp_path, steps=110, warmup_steps=10, lr=1.0, lr_min=0.2).train
    rates = [learning_rate(train, step) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[60] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2, abs=1e-3)
    assert max(rates) == rates[10] == pytest.approx(1.0)
