"""The device of a run, and its random generators."""

from pathlib import Path

import pytest
import torch
from torch import nn

from derain.errors import UsageError
from derain.training.process import distributed
from derain.training.process.device import device_named, pick_device, seed_all
from derain.training.process.distributed import Rank, wrap
from tests.tiny import config


def test_a_missing_gpu_is_an_error_and_not_a_cpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        assert pick_device(config(tmp_path, device="cuda").train).type == "cuda"
    else:
        with pytest.raises(UsageError, match="no CUDA device"):
            pick_device(config(tmp_path, device="cuda").train)


def test_seeding_equals_torch_manual_seed() -> None:
    seed_all(torch.device("cpu"), 7)
    drawn = torch.rand(5)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(5))


@pytest.fixture
def third_gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A process of a node with four GPUs, in which Ray Train has made the third one current."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    return torch.device("cuda", 2)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_worker_of_a_node_has_its_own_gpu(name: str, third_gpu: torch.device) -> None:
    assert device_named(name) == third_gpu
    assert device_named("cpu") == torch.device("cpu")


def test_ddp_gets_the_gpu_of_its_process(
    third_gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(
        distributed, "DistributedDataParallel", lambda _, **options: made.append(options)
    )
    for device in (third_gpu, torch.device("cpu")):
        wrap(nn.Linear(1, 1), "ddp", device, Rank(2, 4))
    assert [options["device_ids"] for options in made] == [[2], None]
