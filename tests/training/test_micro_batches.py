"""Micro-batches give the step of the whole batch, and are the largest that memory has room for."""

from pathlib import Path

import pytest

from derain.errors import DerainError
from derain.training.factory import build_network
from derain.training.micro_batches import fewest_parts
from tests.tiny import assert_close, config, room_for, run, without_noise


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    for name, size in (("whole", None), ("parts", 3)):
        wanted = config(tmp_path / name, micro_batch_size=size)
        run(wanted, network=without_noise(build_network(wanted)))
    assert_close(tmp_path / "whole", tmp_path / "parts")


def test_micro_batches_are_the_largest_that_fit(tmp_path: Path) -> None:
    """Five crops are too many, four are not; the run begins at an epoch's last batch, of three."""
    seen: list[int] = []
    for name, size in (("whole", None), ("parts", "auto")):
        run(config(tmp_path / name, steps=1, batch_size=8, micro_batch_size=None))
        wanted = config(tmp_path / name, steps=4, batch_size=8, micro_batch_size=size)
        network = without_noise(build_network(wanted))
        run(wanted, network=room_for(network, 4, seen) if size else network)
    assert seen == [8, 4, 3, 4, 4, 3]  # two trials, then batches of 3, 8 and 3 crops
    assert_close(tmp_path / "whole", tmp_path / "parts")


def test_a_crop_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    wanted = config(tmp_path, micro_batch_size="auto")
    with pytest.raises(DerainError, match="Not even one crop fits"):
        run(wanted, network=room_for(build_network(wanted), 0, []))


@pytest.mark.parametrize("room", [1, 2, 3, 5, 7, 12, 13])
def test_the_fewest_parts_are_found(room: int) -> None:
    tried: list[int] = []

    def fits(parts: int) -> bool:
        tried.append(parts)
        return -(-13 // parts) <= room

    found = fewest_parts(13, fits)
    assert found == next(parts for parts in range(1, 14) if -(-13 // parts) <= room)
    assert len(tried) <= 7
