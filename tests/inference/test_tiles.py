"""Tiles: what they cover, that they blend to the whole image, and how large `auto` makes them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from derain import models
from derain.errors import UsageError
from derain.inference import memory
from derain.inference.predictor import OVERLAP_PX, Predictor
from derain.inference.tiles import bands, shares, spans

GIB = 2**30


class Blur(nn.Module):
    """The mean of 9x9 pixels, with the route added: depends on 4 pixels around."""

    stride = 4
    route_key: tuple[str, ...] | None = None

    def forward(self, rain: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(rain, 9, stride=1, padding=4, count_include_pad=False)


@given(
    side=st.integers(1, 700),
    tile=st.integers(4, 30),
    part=st.integers(3, 16),
    stride=st.sampled_from([1, 4, 16]),
)
def test_the_shares_of_tiles_add_up_to_one_everywhere(
    side: int, tile: int, part: int, stride: int
) -> None:
    tile_px = tile * 16
    overlap = tile_px // part
    total, unused = np.zeros(side), overlap // 3
    found = spans(side, tile_px, overlap, stride)
    for (begin, end), share in zip(found, shares(side, tile_px, overlap, stride), strict=True):
        total[begin:end] += share
        assert begin % stride == 0
        assert end - begin <= tile_px
        if begin:
            assert not share[:unused].any()
        if end < side:
            assert not share[len(share) - unused :].any()
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert found[-1][1] == side


@pytest.mark.parametrize("size", [(301, 417), (256, 600), (90, 1000), (64, 64)])
def test_a_network_that_sees_less_than_the_overlap_gives_the_whole_image(
    size: tuple[int, int],
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    whole, tiled = Predictor(Blur()), Predictor(Blur(), tile=256)
    np.testing.assert_allclose(tiled.levels(image), whole.levels(image), atol=1e-3)
    assert np.abs(tiled.derain(image).astype(int) - whole.derain(image)).max() <= 1


def test_prenet_in_tiles_equals_prenet_as_a_whole() -> None:
    torch.manual_seed(0)
    network = models.build("prenet", recursions=2, width=8)
    image = np.random.default_rng(1).integers(0, 256, (300, 420, 3), np.uint8)
    tiled = Predictor(network, tile=256).levels(image)
    np.testing.assert_allclose(tiled, Predictor(network).levels(image), atol=1e-2)


def test_the_route_is_that_of_the_whole_image() -> None:
    class Routed(Blur):
        route_key = ("expert",)

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[int, ...]] = []
            self.routes: list[float] = []

        def perceive(self, rain: Tensor) -> Tensor:
            self.seen.append(tuple(rain.shape[2:]))
            return rain.mean()

        def forward(self, rain: Tensor, route: Tensor | None = None) -> Tensor:
            assert route is not None
            self.routes.append(float(route))
            return super().forward(rain)

    network = Routed()
    Predictor(network, tile=128).derain(np.zeros((200, 300, 3), np.uint8))
    assert network.seen == [(200, 300)]
    assert len(network.routes) > 4
    assert len(set(network.routes)) == 1


def test_one_row_of_tiles_is_in_memory() -> None:
    image = np.zeros((5000, 300, 3), np.uint8)
    heights = [
        len(band) for _, band in bands(image, lambda tile: tile.astype(np.float32), 256, 96, 4)
    ]
    assert sum(heights) == 5000
    assert max(heights) <= 256


def test_auto_takes_tiles_that_fit_and_the_whole_image_where_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = Predictor(models.build("prenet", recursions=2, width=32), tile="auto")
    large = np.broadcast_to(np.zeros(3, np.uint8), (9000, 12000, 3))
    monkeypatch.setattr(memory, "available_bytes", lambda _: 4 * GIB)
    side = predictor._tile_px(large)
    assert side is not None
    assert OVERLAP_PX < side < 9000
    assert predictor._tile_px(large[:300, :300]) is None
    monkeypatch.setattr(memory, "available_bytes", lambda _: 4096 * GIB)
    assert predictor._tile_px(large) is None


def test_the_bytes_of_tensors_are_counted_until_they_are_freed() -> None:
    kept: list[Tensor] = []

    def work() -> None:
        for _ in range(5):
            torch.ones(1000).mul_(2).add(1)  # two of 4,000 bytes at a time
        kept.append(torch.ones(250))

    assert 8000 <= memory.peak_bytes(work) < 12_000


def test_memory_is_that_of_the_machine_or_its_limit() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory.available_bytes(torch.device("cpu")) < total


def test_tiles_that_are_too_small_are_refused() -> None:
    with pytest.raises(UsageError, match=r"128 px a side or more .*, found 10"):
        Predictor(Blur(), tile=10)


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_control_group_counts_and_those_above_it(
    tmp_path: Path, version: int
) -> None:
    names = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    top = tmp_path / ("memory" if version == 1 else "")

    def write(group: Path, *values: object) -> None:
        group.mkdir(parents=True, exist_ok=True)
        for name, value in zip(names[:2], values[:2], strict=True):
            (group / name).write_text(f"{value}\n")
        (group / "memory.stat").write_text(f"anon 5\n{names[2]} {values[2]}\n")

    write(top / "pod", 1000, 400, 100)
    write(top / "pod/job", 5000, 600, 0)
    own = tmp_path / "own"
    own.write_text(f"7:blkio:/\n{'9:memory' if version == 1 else '0:'}:/pod/job\n")
    assert sorted(memory._group_bytes(tmp_path, own)) == [700, 4400]
    (top / "pod/job" / names[0]).write_text("max\n")
    assert list(memory._group_bytes(tmp_path, own)) == [700]
    assert list(memory._group_bytes(tmp_path, tmp_path / "gone")) == []
