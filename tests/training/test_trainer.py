"""The learning rate and the gradients of a step; test_loop.py tests whole runs."""

from pathlib import Path

from derain.data.loading.loader import Position
from derain.training.process.device import to_device
from tests.tiny import config, loader, make_run


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
