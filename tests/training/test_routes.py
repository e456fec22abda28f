"""Routes are decided once, on whole images, and reach the training step by sample id."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from derain.config import Config
from derain.data.loading.loader import Batch, Position
from derain.models import build
from derain.training.factory import build_network, loss_of
from derain.training.process.distributed import Rank
from derain.training.routes import rainy_batches, routes_of, takes_routes
from derain.training.trainer import Trainer

SMALL = {
    "encoder_weights": "random",
    "encoder_dim": 8,
    "encoder_width": 16,
    "encoder_layers": 1,
    "encoder_text_width": 16,
    "encoder_text_layers": 1,
    "temperature": 1.0,
    "widths": (8, 16),
    "depths": (1, 1),
    "heads": (1, 1),
    "mgca": ("window",),
}
CPU = torch.device("cpu")


class Pixels:
    """20 images of one size, then 3 of another; counts the reads."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return 23

    def __getitem__(self, sample: int) -> np.ndarray:
        self.reads += 1
        shape = (2, 24, 40, 3) if sample < 20 else (2, 40, 24, 3)
        return np.random.default_rng(sample).integers(0, 256, shape, dtype=np.uint8)


def dataset(name: str) -> Any:
    """The attributes of a prepared dataset that routes need."""
    return SimpleNamespace(sha256=lambda: name, folder=Path(name))


def test_batches_have_consecutive_images_of_one_size_and_every_image_once() -> None:
    batches = list(rainy_batches(Pixels(), CPU))
    assert [tuple(images.shape) for _, images in batches] == [
        (16, 3, 24, 40),
        (4, 3, 24, 40),
        (3, 3, 40, 24),
    ]
    assert [number for numbers, _ in batches for number in numbers] == list(range(23))
    expected = Pixels()[17][0].transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(batches[1][1][1], expected, rtol=1e-6)


@pytest.mark.parametrize("routing", ["hard", "random"])
def test_every_sample_has_the_route_of_its_whole_image(tmp_path: Path, routing: str) -> None:
    network = build("clip_rpn", routing=routing, **SMALL)
    sets, pixels = [dataset("one"), dataset("two")], [Pixels(), Pixels()]
    assert takes_routes(network)
    routes = routes_of(network, sets, pixels, str(tmp_path), CPU)
    alone = [
        network.perceive(torch.from_numpy(Pixels()[n][0]).permute(2, 0, 1)[None] / 255).item()
        for n in range(23)
    ]
    assert routes.tolist() == alone * 2


def test_routes_are_decided_once_per_dataset_and_perception(tmp_path: Path) -> None:
    first, again, other = Pixels(), Pixels(), Pixels()
    network = build("clip_rpn", **SMALL)
    routes_of(network, [dataset("one")], [first], str(tmp_path), CPU)
    assert first.reads == 23
    routes_of(build("clip_rpn", **SMALL), [dataset("one")], [again], str(tmp_path), CPU)
    assert again.reads == 0
    words = build("clip_rpn", **SMALL, prompts=("light rain", "heavy rain"))
    routes_of(words, [dataset("one")], [other], str(tmp_path), CPU)
    assert other.reads == 23


@pytest.mark.parametrize("routing", ["single", "soft"])
def test_a_network_that_decides_nothing_has_no_routes(routing: str) -> None:
    assert not takes_routes(build("clip_rpn", routing=routing, **SMALL))
    assert not takes_routes(build("prenet"))


def test_an_expert_without_images_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = build("clip_rpn", routing="random", prompts=tuple("abcdefgh" * 20), **SMALL)
    routes_of(network, [dataset("one")], [Pixels()], str(tmp_path), CPU)
    assert "gets 0 of 23 images" in caplog.text


def test_the_step_sends_each_image_to_the_expert_of_its_sample(tmp_path: Path) -> None:
    tree = {
        "name": "run",
        "output_dir": str(tmp_path),
        "model": {"name": "clip_rpn", "routing": "random", **SMALL},
        "train": {"steps": 1, "device": "cpu"},
        "loss": {"perceptual": "none"},
    }
    config = Config.model_validate(tree)
    network = build_network(config)
    routes = np.array([2, 0, 1, 0, 2])
    loss = loss_of(config, network)
    trainer = Trainer(config, network, loss, device=CPU, rank=Rank(), routes=routes)
    rain, clean = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    batch = Batch(rain, clean, ids=np.array([4, 1, 2]), share=1.0, following=Position())
    _, terms = trainer.losses(batch, progress=0.0)
    expected = network(rain, route=torch.tensor([2, 0, 1]))
    assert terms["l1"].item() == pytest.approx((expected - clean).abs().mean().item(), rel=1e-5)
    elsewhere = network(rain, route=torch.tensor([0, 0, 0]))
    assert not torch.allclose(elsewhere, expected)
