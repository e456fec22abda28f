"""The device of a run, and its random generators."""

from pathlib import Path

import pytest
import torch

from derain.errors import UsageError
from derain.training.process.device import pick_device, seed_all
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
