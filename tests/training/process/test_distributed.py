"""Several ranks train one network: same losses and weights as one rank, same checkpoints."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from derain.errors import UsageError
from derain.inference.predictor import Predictor
from derain.training import checkpoint
from derain.training.factory import build_network
from derain.training.process.distributed import Rank
from tests.tiny import (
    BATCHNORM_NETWORK,
    assert_close,
    config,
    ledger,
    limit_crops,
    ranks,
    run,
    without_noise,
)

RARELY_SAVED = {"checkpoint_every_steps": 6, "eval_every_steps": 1}
"""Steps that follow a validation without a checkpoint, which would gather the weights again."""

SEVERAL_RANKS = {
    "ddp": RARELY_SAVED,
    "fsdp2": {"parallel": "fsdp2", **RARELY_SAVED},
    "parts": {"micro_batch_size": 1},
    "auto": {"micro_batch_size": "auto"},
    "fsdp2_parts": {"parallel": "fsdp2", "micro_batch_size": 1},
}


def test_several_ranks_train_like_one(tmp_path: Path) -> None:
    """Three ranks, whose shares of four samples are unequal."""
    single = config(tmp_path / "one", steps=6, clip_norm=0.5)
    run(single, network=without_noise(build_network(single)))
    for copied in ("resumed", "apart"):
        shutil.copytree(tmp_path / "one", tmp_path / copied)
    ranks(_train_on_rank, 3, tmp_path)
    ids = [line["ids"] for line in ledger(tmp_path / "one")]
    for name in SEVERAL_RANKS:
        assert_close(tmp_path / "one", tmp_path / name)
        shared: list[list[int]] = [[] for _ in ids]
        for line in sorted(ledger(tmp_path / name), key=lambda line: (line["step"], line["rank"])):
            shared[line["step"]] += line["ids"]
        assert shared == ids
    _assert_each_resumes_the_other(tmp_path)
    _assert_validation_had_the_saved_statistics(tmp_path)


def test_three_ranks_resume_to_the_bit(tmp_path: Path) -> None:
    """Two add up their gradients to the same sum in any order; three do not."""
    ranks(_train_and_resume, 3, tmp_path)
    whole, resumed = ((tmp_path / f"{name}.sha256").read_text() for name in ("whole", "resumed"))
    assert resumed == whole


def _train_and_resume(number: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world
    )
    rank = Rank(number, world)
    for name, pauses in (("whole", ()), ("resumed", (10,))):
        run_config = config(folder / name, num_workers=world, steps=30, batch_size=6)
        for pause in pauses:
            run(run_config, rank=rank, until=pause)
        outcome = run(run_config, rank=rank)
        if rank.leads:
            (folder / f"{name}.sha256").write_text(outcome.weights_sha256)
    dist.destroy_process_group()


def _train_on_rank(number: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world
    )
    rank = Rank(number, world)
    for name, values in SEVERAL_RANKS.items():
        run_config = config(folder / name, num_workers=world, steps=6, clip_norm=0.5, **values)
        network = without_noise(build_network(run_config))
        if name == "auto" and not rank.leads:
            network = limit_crops(network, 1, [])
        run(run_config, rank=rank, network=network, validate=_predict_one_image)
    longer = config(folder / "resumed", num_workers=world, steps=9, clip_norm=0.5, parallel="fsdp2")
    run(longer, rank=rank, network=without_noise(build_network(longer)))
    _save_what_validation_sees(folder / f"counted-{number}", rank)
    _resume_on_different_disks(folder, rank)
    dist.destroy_process_group()


def _predict_one_image(network: nn.Module) -> Mapping[str, float]:
    Predictor(network).derain(np.zeros((16, 16, 3), np.uint8))
    return {"psnr_y": 0.0}


def _save_what_validation_sees(folder: Path, rank: Rank) -> None:
    """BatchNorm's statistics differ between ranks, and rank 0 writes the checkpoint."""
    run_config = config(folder, num_workers=rank.world, steps=2, eval_every_steps=2)
    run_config = run_config.replaced(
        {"model": BATCHNORM_NETWORK, "loss": {"perceptual": "none"}}, "test"
    )

    def write_buffers(network: nn.Module) -> Mapping[str, float]:
        save_file(dict(network.named_buffers()), folder / "buffers.safetensors")
        return {"psnr_y": 0.0}

    run(run_config, rank=rank, validate=write_buffers)


def _resume_on_different_disks(folder: Path, rank: Rank) -> None:
    """Rank 0 finds a checkpoint, the others find none."""
    run_config = config(folder / ("apart" if rank.leads else f"apart-{rank.number}"))
    with pytest.raises(UsageError, match="must see the same output_dir"):
        run(run_config, rank=rank)


def _assert_each_resumes_the_other(folder: Path) -> None:
    """A checkpoint of FSDP2 is like any other: optimiser state, moving average and all."""
    for name in ("one", "fsdp2"):
        longer = config(folder / name, steps=9, clip_norm=0.5)
        run(longer, network=without_noise(build_network(longer)))
    assert_close(folder / "one", folder / "fsdp2")
    assert_close(folder / "one", folder / "resumed")


def _assert_validation_had_the_saved_statistics(folder: Path) -> None:
    newest = checkpoint.newest(config(folder / "counted-0").folder)
    assert newest is not None
    saved = newest.model()
    means = [name for name in saved if name.endswith("running_mean")]
    assert means
    for number in range(3):
        seen = load_file(folder / f"counted-{number}" / "buffers.safetensors")
        assert all(torch.equal(seen[name], saved[name]) for name in means)
