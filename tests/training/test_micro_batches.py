"""Micro-batches give the step of the whole batch, and are the largest that fit in memory."""

from pathlib import Path

import pytest
import torch
from torch import nn

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


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
    ],
)
def test_libraries_that_run_out_of_memory_are_understood(text: str, tmp_path: Path) -> None:
    run_config = config(tmp_path, steps=1, micro_batch_size="auto")
    seen: list[int] = []

    def allocate(_module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        seen.append(len(inputs[0]))
        if len(inputs[0]) > 2:
            raise RuntimeError(text)

    network = build_network(run_config)
    network.register_forward_pre_hook(allocate)
    run(run_config, network=network)
    assert seen[:2] == [4, 2]


def test_another_error_of_the_gpu_is_no_lack_of_memory(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    run_config = config(tmp_path, micro_batch_size="auto")
    network = build_network(run_config)
    network.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(run_config, network=network)


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


def test_a_network_without_buffers_has_micro_batches_too(tmp_path: Path) -> None:
    nafnet = {"name": "nafnet", "width": 4, "encoder_blocks": [1], "decoder_blocks": [1]}
    run_config = config(tmp_path, steps=1, micro_batch_size="auto").replaced(
        {"model": nafnet, "loss": {"perceptual": "none"}}, "test"
    )
    seen: list[int] = []
    network = build_network(run_config)
    assert not list(network.buffers())
    run(run_config, network=limit_crops(network, 3, seen))
    assert seen == [4, 2, 2, 2]
