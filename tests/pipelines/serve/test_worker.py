"""One network that answers many requests: batches by size, routes, faults of single images."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from derain.data.images.convert import read_odd
from derain.inference.predictor import Predictor
from derain.models import build
from derain.pipelines.serve.answers import Derained, Refused
from derain.pipelines.serve.worker import Worker
from tests.data.images.odd_images import encoded
from tests.models.networks.small_clip_rpn import SMALL


class Counting(nn.Module):
    """Inverts images; remembers the sizes of its batches, and fails on a black corner."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append((len(x), x.shape[-1]))
        if bool((x[:, :, 0, 0] == 0).all(1).any()):
            return x * float("nan")
        return 1 - x


def images(widths: Sequence[int], black: int | None = None) -> list[bytes]:
    found = []
    for number, width in enumerate(widths):
        levels = np.random.default_rng(number).integers(1, 256, (20, width, 3), dtype=np.uint8)
        if number == black:
            levels[0, 0] = 0
        found.append(encoded(Image.fromarray(levels)))
    return found


def ask(worker: Worker, sent: Sequence[bytes]) -> list[Derained | Refused]:
    async def all_at_once() -> list[Derained | Refused]:
        return list(await asyncio.gather(*map(worker.derain, sent)))

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("batch", [1, 3])
def test_images_of_one_size_that_wait_are_computed_at_once(batch: int) -> None:
    network = Counting()
    worker = Worker(Predictor(network), max_pixels=10_000, batch=batch)
    sent = images([24, 24, 31, 24, 24, 31, 24, 24, 24])
    # The network's thread is busy until all are decoded.
    decoded = [0]
    worker._network.submit(lambda: _wait_for_all(worker, len(sent), decoded))
    answers = ask(worker, sent)
    assert decoded == [len(sent)]
    for data, answer in zip(sent, answers, strict=True):
        assert isinstance(answer, Derained)
        found, given = read_odd(answer.data, "found").levels, read_odd(data, "given").levels
        np.testing.assert_array_equal(found, 255 - given)
    sizes = [size for size, _ in network.seen]
    assert sum(sizes) == len(sent)
    assert max(sizes) == batch
    assert len(sizes) == {1: 9, 3: 4}[batch]  # 7 of one width, 2 of the other


def _wait_for_all(worker: Worker, count: int, decoded: list[int]) -> None:
    for _ in range(1000):
        decoded[0] = len(worker._waiting)
        if decoded[0] == count:
            return
        time.sleep(0.01)


def test_an_image_that_fails_does_not_fail_those_beside_it() -> None:
    worker = Worker(Predictor(Counting()), max_pixels=10_000, batch=4)
    decoded = [0]
    worker._network.submit(lambda: _wait_for_all(worker, 4, decoded))
    answers = ask(worker, images([24] * 4, black=2))
    assert [type(answer) for answer in answers] == [Derained, Derained, Refused, Derained]
    assert isinstance(answers[2], Refused)
    assert answers[2].kind == "not_derained"


def test_a_network_with_routes_tells_which_it_took() -> None:
    network = build("clip_rpn", **{**SMALL, "routing": "random"})
    predictor = Predictor(network)
    worker = Worker(predictor, max_pixels=10_000)
    sent = images([24, 24, 31])
    for data, answer in zip(sent, ask(worker, sent), strict=True):
        assert isinstance(answer, Derained)
        route = predictor.route(read_odd(data, "it").srgb)
        assert route is not None
        assert answer.facts["route"] == route
        assert answer.facts["prompt"] == network.prompts[route]
    assert "route" not in ask(Worker(Predictor(Counting()), max_pixels=10_000), sent)[0].facts
