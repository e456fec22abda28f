"""Networks restored from a checkpoint: their averaged weights and their frozen parts."""

from pathlib import Path

import pytest
import torch

from derain.errors import WeightsError
from derain.training import checkpoint
from derain.training.factory import (
    build_network,
    check_frozen,
    loss_of,
    restore_network,
    start_from,
)
from derain.training.loop import Outcome
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


def test_a_restored_network_has_the_averaged_weights(done: Outcome) -> None:
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


def test_a_different_network_in_the_loss_is_refused_when_training_continues(tmp_path: Path) -> None:
    vgg = {"perceptual": "vgg16", "perceptual_weights": "random", "lambda_p": 0.1}
    run_config = config(tmp_path, steps=1).replaced({"loss": vgg}, "test")
    saved = checkpoint.load(run(run_config).checkpoint)
    network = restore_network(saved)
    loss = loss_of(run_config, network)
    check_frozen(saved, network, loss)
    with torch.no_grad():
        next(loss.parameters()).add_(1)
    check_frozen(saved, network)
    with pytest.raises(WeightsError, match=r"loss\.features"):
        check_frozen(saved, network, loss)


def test_a_network_starts_from_trained_weights_and_keeps_its_frozen_ones(done: Outcome) -> None:
    saved = checkpoint.load(done.checkpoint)
    fresh = build_network(saved.config.replaced({"seed": 3, "model.encoder_seed": 5}, "test"))
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    start_from(saved, fresh)
    average = saved.ema()
    assert average is not None
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, average.get(name, before[name]))


def test_a_network_does_not_start_from_a_different_one(done: Outcome) -> None:
    saved = checkpoint.load(done.checkpoint)
    other = saved.config.replaced({"model.decoder_widths": [8, 8, 8, 8, 12]}, "test")
    with pytest.raises(WeightsError, match=r"(?s)start_from.*same options.*levels\.4"):
        start_from(saved, build_network(other))
    with pytest.raises(WeightsError, match=r"(?s)its fclip_unet is not.*recurrent|conv0"):
        start_from(saved, build_network(saved.config.replaced({"model": {"name": "prenet"}}, "t")))
