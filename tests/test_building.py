"""What a checkpoint gives back: the average, and frozen parts that must be the same."""

import pytest
import torch

from derain import checkpoint
from derain.building import build_network, restore_network
from derain.errors import WeightsError
from derain.loop import Outcome
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
