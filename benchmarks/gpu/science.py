"""Trains the three papers' networks on RainTrainL for as long as a stage lasts.

Each at a size that suits 200 pairs, on a validation part of its own; all at once in processes of
their own, as none of them fills a GPU. A run that has a checkpoint goes on from it, with the number
of steps that the first call has set. Rank and score on Rain100L afterwards, with the checkpoint:

    derainctl evaluate OUT/runs/NAME PREPARED/rain100l-test
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.items import THREE, Bench, Work, paper, random_batch, trainer_of
from derain.config import Config, load_config
from derain.data.loading.loader import open_loader
from derain.data.loading.prefetch import prefetch
from derain.data.prepared.roles import open_training, open_validation
from derain.models.cost import cost
from derain.pipelines.train.metrics_file import append_metrics
from derain.pipelines.train.validation import Validation
from derain.training import checkpoint
from derain.training.factory import build_network
from derain.training.loop import Run, drive
from derain.training.process.device import pick_device
from derain.training.process.distributed import Rank

RESERVE_S = 40.0
"""Of the stage, for start, validation and the last checkpoint."""
MARGIN = 0.85
"""Of the steps that the probe promises: validation takes its part, and other runs may slow it."""
PROBED = 30
"""Steps whose time decides how many there will be."""
SIZES: dict[str, dict[str, Any]] = {
    "fclip_unet": {
        "model": {
            "name": "fclip_unet", "encoder_weights": "random", "encoder_width": 32,
            "encoder_layers": [1, 1, 1, 1], "decoder_widths": [192, 128, 96, 64, 48],
            "decoder_depths": [2, 2, 2, 2, 3], "layer_scale": 0.1, "output": "residual",
            "ldfps_sigma": None,
        },
        "loss": {"pixel": "mse"},
    },
    "clip_rpn": {
        "model": {
            "name": "clip_rpn", "routing": "single", "widths": [32, 64, 128], "heads": [1, 2, 4],
            "depths": [2, 3, 4], "block": "naf", "mgca": ["none", "channel"],
        },
        "loss": {"pixel": "power", "schedule": {"kind": "power_anneal", "normalize": True}},
    },
    "rdmc": {
        "model": {
            "name": "rdmc", "recursions": 3, "widths": [16, 32, 64], "dilations": [1, 2, 3],
            "up": "bilinear",
        },
        "loss": {"pixel": "l1"},
    },
}  # fmt: skip
TRAIN: dict[str, Any] = {
    "batch_size": 16, "crop_px": 128, "lr": 1e-3, "lr_min": 1e-6, "warmup_steps": 200,
    "betas": [0.9, 0.99], "weight_decay": 0.0, "clip_norm": 1.0, "ema_decay": 0.999,
    "precision": "bf16", "eval_every_steps": 1000, "checkpoint_every_steps": 500,
    "on_nonfinite": "rollback", "log_every_steps": 100, "use_checkpoint": "last",
    "keep_checkpoints": 1,
}  # fmt: skip


def items(bench: Bench) -> Iterator[tuple[str, Work]]:
    """One item: all runs. `--only NAME` leaves one run, in this process."""
    names = [name for name in THREE if any(part == name for part in bench.only)]
    if names:
        yield f"{names[0]} trains", partial(_train, bench, names[0])
    else:
        yield "trains", partial(_all, bench)


def config_of(bench: Bench, name: str) -> Config:
    """The run of a network, with a number of steps that is a mere upper limit."""
    if bench.train is None:
        raise SystemExit("science needs --train, a prepared dataset (RainTrainL).")
    tree = {
        "name": name,
        "output_dir": str(bench.out / "runs"),
        **SIZES[name],
        "data": {
            "train": bench.train,
            "validation_share": 0.1,
            "augment": "flip",
            "loader_processes": 0 if bench.small else 3,
        },
        "train": {**TRAIN, "steps": 10**6, "device": bench.device.type},
    }
    if bench.small:
        tree["model"] = paper(bench, name).model.model_dump()
        tree["train"] |= {"crop_px": 32, "batch_size": 4, "eval_every_steps": 20}
        tree["train"] |= {"checkpoint_every_steps": 20, "log_every_steps": 10, "warmup_steps": 5}
        tree["train"]["precision"] = "fp32"
    return Config.model_validate(tree)


def _all(bench: Bench) -> Mapping[str, Any]:
    """The three runs side by side."""
    minutes = (bench.deadline - time.monotonic()) / 60
    _prepare(config_of(bench, THREE[0]))  # one process fills the cache
    common = ["science", "--out", str(bench.out), "--device", bench.device.type]
    common += ["--train", str(bench.train), "--minutes", f"{minutes:.2f}"]
    common += ["--small"] if bench.small else []
    runs = {
        name: subprocess.Popen([sys.executable, "-m", "benchmarks.gpu", *common, "--only", name])
        for name in THREE
    }
    codes = [run.wait() for run in runs.values()]
    return {"ok": not any(codes)}


def _prepare(config: Config) -> None:
    Validation(config, Rank())
    open_loader(config)


def _train(bench: Bench, name: str) -> Mapping[str, Any]:
    began = time.monotonic()
    config = config_of(bench, name)
    saved = checkpoint.newest(config.folder)
    if saved is not None:
        config = load_config(saved.folder / checkpoint.CONFIG)
        here = {"data.train": bench.train, "output_dir": str(bench.out / "runs")}
        config = config.replaced(here, "benchmark")
    else:
        seconds = bench.deadline - time.monotonic() - (2 if bench.small else RESERVE_S)
        possible = 60 if bench.small else int(MARGIN * seconds / _seconds_a_step(config))
        steps = max(PROBED, possible)
        config = config.replaced({"train.steps": steps}, "benchmark")
    torch.set_num_threads(2)
    loader = open_loader(config)
    with prefetch(loader, config.data.loader_processes) as batch_at:
        run = _run(config)
        drive(run, batch_at, config.train)
    outcome = run.outcome()
    best = Validation(config, Rank())
    with run.trainer.validation_network() as network:
        metrics = best(network)
    return {
        **metrics,
        "steps": outcome.steps,
        "resumed_from": outcome.resumed_from_step,
        "parameters": cost(build_network(config)).trained_parameters,
        "training_s": round(outcome.seconds, 1),
        "with_start_s": round(time.monotonic() - began, 1),
    }


def _seconds_a_step(config: Config) -> float:
    """On noise, after the kernels are chosen, beside the other runs."""
    trainer = trainer_of(config, pick_device(config.train))
    batch = random_batch(config, pick_device(config.train), config.train.batch_size, 128)
    for number in range(2 * PROBED):
        if number == PROBED:
            float(trainer.step(number, batch)["loss"])
            began = time.perf_counter()
        values = trainer.step(number, batch)
    float(values["loss"])
    return (time.perf_counter() - began) / PROBED


def _run(config: Config) -> Run:
    def report(step: int, metrics: Mapping[str, float]) -> None:
        append_metrics(config.folder, step, metrics)
        if any(name.startswith("psnr") for name in metrics):
            shown = ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if k != "lr")
            print(f"{config.name} {step}/{config.train.steps}: {shown}", flush=True)

    return Run(
        config=config,
        trainer=trainer_of(config, pick_device(config.train)),
        folder=config.folder,
        report=report,
        manifests=[each.sha256() for each in open_training(config.data)],
        held_out=[each.sha256() for each in open_validation(config.data)],
        resume=checkpoint.newest(config.folder),
        validate=Validation(config, Rank()),
    )
