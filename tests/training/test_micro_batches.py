"""Micro-batches give the step of the whole batch, and are the largest that fit in memory."""

from pathlib import Path

import pytest

from derain.errors import DerainError
from derain.training.factory import build_network
from derain.training.micro_batches import fewest_parts
from tests.tiny import assert_close, config, limit_crops, run, without_noise


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    for name, size in (("whole", None), ("parts", 3)):
        run_config = config(tmp_path / name, micro_batch_size=size)
        run(run_config, network=without_noise(build_network(run_config)))
    assert_close(tmp_path / "whole", tmp_path / "parts")


def test_micro_batches_are_the_largest_that_fit(tmp_path: Path) -> None:
    """Four crops fit, five do not; the run starts with the last batch of an epoch, of three."""
    seen: list[int] = []
    for name, size in (("whole", None), ("parts", "auto")):
        run(config(tmp_path / name, steps=1, batch_size=8, micro_batch_size=None))
        run_config = config(tmp_path / name, steps=4, batch_size=8, micro_batch_size=size)
        network = without_noise(build_network(run_config))
        run(run_config, network=limit_crops(network, 4, seen) if size else network)
    assert seen == [8, 4, 3, 4, 4, 3]  # two probes, then batches of 3, 8 and 3 crops
    assert_close(tmp_path / "whole", tmp_path / "parts")


def test_a_crop_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    run_config = config(tmp_path, micro_batch_size="auto")
    with pytest.raises(DerainError, match="Not even one crop fits"):
        run(run_config, network=limit_crops(build_network(run_config), 0, []))


@pytest.mark.parametrize("room", [1, 2, 3, 5, 7, 12, 13])
def test_the_fewest_parts_are_found(room: int) -> None:
    tried: list[int] = []

    def fits(parts: int) -> bool:
        tried.append(parts)
        return -(-13 // parts) <= room

    found = fewest_parts(13, fits)
    assert found == next(parts for parts in range(1, 14) if -(-13 // parts) <= room)
    assert len(tried) <= 7
