"""A run: resumes to the bit, counts every sample, does not depend on the number of ranks."""

import json
import math
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import nn

from derain.config import Config
from derain.data.loading.loader import Loader
from derain.data.loading.order import Recipe
from derain.data.loading.prefetch import feed
from derain.errors import DerainError, StoppedError, UsageError
from derain.inference.predictor import Predictor
from derain.training import checkpoint
from derain.training.factory import build_network
from derain.training.ledger import LEDGER
from derain.training.loop import Outcome, follow
from derain.training.process.distributed import Rank
from derain.training.process.interrupt import Interrupt, ask_to_stop
from derain.training.trainer import learning_rate
from tests.tiny import (
    NETWORK,
    Pixels,
    a_run,
    assert_close,
    config,
    loader,
    ranks,
    room_for,
    run,
    without_noise,
)


def ledger(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / LEDGER).read_text().splitlines()]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list]:
    folder = tmp_path_factory.mktemp("unbroken")
    figures: list[Mapping[str, float]] = []
    return folder, run(config(folder), figures), figures


def test_the_same_config_gives_the_same_losses_and_weights(
    unbroken: tuple[Path, Outcome, list], tmp_path: Path
) -> None:
    figures: list[Mapping[str, float]] = []
    again = run(config(tmp_path), figures)
    assert [f["loss"] for f in figures] == [f["loss"] for f in unbroken[2]]
    assert again.weights_sha256 == unbroken[1].weights_sha256


@pytest.mark.parametrize("stop", [1, 2, 3, 6, 8])
def test_a_resumed_run_equals_the_unbroken_one_to_the_bit(
    unbroken: tuple[Path, Outcome, list], tmp_path: Path, stop: int
) -> None:
    run(config(tmp_path))
    for folder in (tmp_path / "run/checkpoints").iterdir():  # killed after `stop` steps
        if int(folder.name.removeprefix("step-")) > stop:
            (folder / "state.json").unlink()
    figures: list[Mapping[str, float]] = []
    resumed = run(config(tmp_path), figures)
    assert resumed.resumed_from_step == stop
    assert resumed.weights_sha256 == unbroken[1].weights_sha256
    assert [f["loss"] for f in figures] == [f["loss"] for f in unbroken[2]][stop:]
    assert (resumed.loss_first, resumed.loss_last) == (
        unbroken[1].loss_first,
        unbroken[1].loss_last,
    )
    assert ledger(tmp_path) == ledger(unbroken[0])


def test_a_resumed_run_keeps_the_error_that_its_schedule_follows(tmp_path: Path) -> None:
    """25 steps: after the first 20 the exponent begins to move."""

    def adaptive(folder: Path, steps: int) -> Config:
        schedule = {"kind": "progress_adaptive"}
        loss = {"pixel": "power", "schedule": schedule, "perceptual": "none"}
        return config(folder, steps=steps, warmup_steps=1000).replaced({"loss": loss}, "test")

    def totals(figures: list[Mapping[str, float]]) -> list[float]:
        return [values["loss"] for values in figures]

    whole: list[Mapping[str, float]] = []
    end = run(adaptive(tmp_path / "whole", 25), whole)
    resumed: list[Mapping[str, float]] = []
    run(adaptive(tmp_path / "cut", 22), resumed)
    assert run(adaptive(tmp_path / "cut", 25), resumed).weights_sha256 == end.weights_sha256
    assert totals(resumed) == totals(whole)
    state = json.loads((end.checkpoint / "state.json").read_text())["running_error"]
    assert state["updates"] == 25
    assert state["error"] != state["first_error"]


@pytest.mark.parametrize("processes", [1, 2])
def test_loader_processes_change_no_bit(
    unbroken: tuple[Path, Outcome, list], tmp_path: Path, processes: int
) -> None:
    wanted = config(tmp_path)
    pairs = np.stack([Pixels()[sample] for sample in range(len(Pixels()))])
    recipe = Recipe(sizes=(len(pairs),), seed=wanted.data_seed)
    figures: list[Mapping[str, float]] = []
    torch.set_num_threads(1)
    with feed(Loader([pairs], recipe, wanted.train.stages), processes) as batch_at:
        outcome = follow(a_run(wanted, figures).loop(), batch_at, wanted.train)
    assert [f["loss"] for f in figures] == [f["loss"] for f in unbroken[2]]
    assert outcome.weights_sha256 == unbroken[1].weights_sha256


def test_the_ledger_has_every_sample_of_an_epoch_once(
    unbroken: tuple[Path, Outcome, list],
) -> None:
    lines = ledger(unbroken[0])
    assert [line["step"] for line in lines] == list(range(9))
    for epoch in range(3):
        ids = [sample for line in lines if line["epoch"] == epoch for sample in line["ids"]]
        assert sorted(ids) == list(range(11))


def test_a_finished_run_resumes_to_the_same_end(
    unbroken: tuple[Path, Outcome, list],
) -> None:
    again = run(config(unbroken[0]))
    assert again.resumed_from_step == 9
    assert again.checkpoint == unbroken[1].checkpoint


def _rank(number: int, world: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world
    )
    rank = Rank(number, world)
    for name, values in TOGETHER.items():
        wanted = config(folder / name, num_workers=world, steps=6, clip_norm=0.5, **values)
        network = without_noise(build_network(wanted))
        if name == "auto" and not rank.leads:
            network = room_for(network, 1, [])
        run(wanted, rank=rank, network=network, validate=_looked_at)
    longer = config(folder / "resumed", num_workers=world, steps=9, clip_norm=0.5, parallel="fsdp2")
    run(longer, rank=rank, network=without_noise(build_network(longer)))
    _validate_what_is_saved(folder / f"counted-{number}", rank)
    _look_where_nobody_else_does(folder, rank)
    dist.destroy_process_group()


def _validate_what_is_saved(folder: Path, rank: Rank) -> None:
    """BatchNorm counts other images on each rank, and rank 0 writes the checkpoint."""
    wanted = config(folder, num_workers=rank.world, steps=2, eval_every_steps=2)
    wanted = wanted.replaced({"model": COUNTING, "loss": {"perceptual": "none"}}, "test")

    def write(network: nn.Module) -> Mapping[str, float]:
        save_file(dict(network.named_buffers()), folder / "buffers.safetensors")
        return {"psnr_y": 0.0}

    run(wanted, rank=rank, validate=write)


def _look_where_nobody_else_does(folder: Path, rank: Rank) -> None:
    """Rank 0 finds a checkpoint, the others see another disk."""
    wanted = config(folder / ("apart" if rank.leads else f"apart-{rank.number}"))
    with pytest.raises(UsageError, match="must see the same output_dir"):
        run(wanted, rank=rank)


COUNTING = {"name": "rdmc", "widths": [4, 4], "dilations": [1], "recursions": 1}
"""With BatchNorm."""


def _looked_at(network: nn.Module) -> Mapping[str, float]:
    Predictor(network).derain(np.zeros((16, 16, 3), np.uint8))
    return {"psnr_y": 0.0}


SELDOM = {"checkpoint_every_steps": 6, "eval_every_steps": 1}
"""Steps that follow a validation without a checkpoint in between, which gathers anew."""

TOGETHER = {
    "ddp": SELDOM,
    "fsdp2": {"parallel": "fsdp2", **SELDOM},
    "parts": {"micro_batch_size": 1},
    "auto": {"micro_batch_size": "auto"},
    "fsdp2_parts": {"parallel": "fsdp2", "micro_batch_size": 1},
}


def test_ranks_together_take_the_step_of_one(tmp_path: Path) -> None:
    """Three ranks, whose shares of four samples are unequal."""
    alone = config(tmp_path / "one", steps=6, clip_norm=0.5)
    run(alone, network=without_noise(build_network(alone)))
    for copied in ("resumed", "apart"):
        shutil.copytree(tmp_path / "one", tmp_path / copied)
    ranks(_rank, 3, tmp_path)
    ids = [line["ids"] for line in ledger(tmp_path / "one")]
    for name in TOGETHER:
        assert_close(tmp_path / "one", tmp_path / name)
        shared: list[list[int]] = [[] for _ in ids]
        for line in sorted(ledger(tmp_path / name), key=lambda line: (line["step"], line["rank"])):
            shared[line["step"]] += line["ids"]
        assert shared == ids
    _assert_each_goes_on_with_the_other(tmp_path)
    saved = checkpoint.newest(config(tmp_path / "counted-0").folder).model()
    for number in range(3):
        seen = load_file(tmp_path / f"counted-{number}" / "buffers.safetensors")
        means = [name for name in saved if name.endswith("running_mean")]
        assert means
        assert all(torch.equal(seen[name], saved[name]) for name in means)


def _assert_each_goes_on_with_the_other(folder: Path) -> None:
    """A checkpoint of FSDP2 is one like any other: optimiser, average and all."""
    for name in ("one", "fsdp2"):
        longer = config(folder / name, steps=9, clip_norm=0.5)
        run(longer, network=without_noise(build_network(longer)))
    assert_close(folder / "one", folder / "fsdp2")
    assert_close(folder / "one", folder / "resumed")


@pytest.mark.parametrize("network", [NETWORK, COUNTING], ids=["chance", "counts"])
def test_finding_out_what_fits_changes_nothing(tmp_path: Path, network: dict[str, object]) -> None:
    values = {"model": network, "loss": {"perceptual": "none"}}
    for size in ("auto", None):
        wanted = config(tmp_path / str(size), steps=2, micro_batch_size=size)
        run(wanted.replaced(values, "test"))
    tried, plain = (
        checkpoint.newest(config(tmp_path / name).folder).model() for name in ("auto", "None")
    )
    assert all(torch.equal(tried[name], plain[name]) for name in plain)


def test_a_compiled_network_trains_as_it_is_and_goes_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dynamo and the traced backward pass; inductor takes minutes to write its code here."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    for name, compiled in (("eager", False), ("compiled", True)):
        wanted = config(tmp_path / name, steps=2, compile=compiled).replaced(SMALLER, "test")
        trained = a_run(wanted, [])
        follow(trained.loop(), loader(wanted).batch, wanted.train)
        assert hasattr(trained.trainer._forward, "_orig_mod") == compiled
        assert run(wanted.replaced({"train.compile": False, "train.steps": 3}, "test")).steps == 3
    assert_close(tmp_path / "eager", tmp_path / "compiled")


SMALLER = {
    "model": {"name": "prenet", "width": 4, "recursions": 1},
    "loss": {"perceptual": "none"},
}
"""Traced in seconds."""


def test_the_best_checkpoint_stays_and_patience_ends(tmp_path: Path) -> None:
    scores = iter([20.0, 25.0, 24.0, 23.0, 22.0])
    figures: list[Mapping[str, float]] = []
    wanted = config(
        tmp_path, steps=20, eval_every_steps=2, patience_evals=3, checkpoint_every_steps=3,
        keep_checkpoints=1, use_checkpoint="best", log_every_steps=20,
    )  # fmt: skip
    outcome = run(wanted, figures, validate=lambda _: {"psnr_y": next(scores)})
    assert (outcome.steps, outcome.best) == (10, {"step": 4, "psnr_y": 25.0})
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000010"]
    assert outcome.checkpoint.name == "step-00000004"
    assert [f["psnr_y"] for f in figures if "psnr_y" in f] == [20.0, 25.0, 24.0, 23.0, 22.0]
    again = run(wanted, validate=lambda _: {"psnr_y": 99.0})  # patience is part of the state
    assert (again.steps, again.best) == (outcome.steps, outcome.best)


def test_the_best_is_of_one_set(tmp_path: Path) -> None:
    """Until the first validation it may become another one."""
    wanted = config(tmp_path, eval_every_steps=2)
    scored: dict[str, Any] = {"validate": lambda _: {"psnr_y": 1.0}}
    run(config(tmp_path), until=1, held_out=("none yet",))
    run(wanted, until=3, held_out=("abc",), **scored)
    with pytest.raises(UsageError, match=r"data\.eval had the manifests abc, it now has another"):
        run(wanted, held_out=("another",), **scored)
    assert run(wanted, held_out=("abc",), **scored).best["step"] == 2


def test_what_is_written_after_a_damaged_one_stays(tmp_path: Path) -> None:
    run(config(tmp_path, checkpoint_every_steps=2, keep_checkpoints=2), until=6)
    damaged = checkpoint.folder_of(tmp_path / "run", 6)
    (damaged / "model.safetensors").write_bytes(b"torn")
    outcome = run(config(tmp_path, checkpoint_every_steps=2, keep_checkpoints=1), until=5)
    assert (outcome.resumed_from_step, outcome.steps) == (4, 5)
    assert checkpoint.steps(tmp_path / "run") == [5]


def test_validation_sees_the_average_and_training_does_not_notice(
    unbroken: tuple[Path, Outcome, list], tmp_path: Path
) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def validate(network: nn.Module) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return {"psnr_y": 1.0}

    outcome = run(config(tmp_path, eval_every_steps=3), validate=validate)
    assert outcome.weights_sha256 == unbroken[1].weights_sha256
    average = checkpoint.load(outcome.checkpoint).ema()
    assert average is not None
    assert all(torch.equal(seen[-1][name], tensor) for name, tensor in average.items())


def _faulty(network: nn.Module, at: int, factor: float) -> nn.Module:
    """The network, whose output is off by a factor at its forward number `at`, once."""
    calls = iter(range(10**9))
    network.register_forward_hook(
        lambda _module, _given, output: output * factor if next(calls) == at else None
    )
    return network


def test_a_step_that_is_not_finite_is_rolled_back(tmp_path: Path) -> None:
    figures: list[Mapping[str, float]] = []
    wanted = config(tmp_path, on_nonfinite="rollback", checkpoint_every_steps=2)
    outcome = run(wanted, figures, network=_faulty(build_network(wanted), at=5, factor=math.nan))
    assert (outcome.steps, outcome.rollbacks) == (9, 1)
    assert [line["step"] for line in ledger(tmp_path)] == list(range(9))
    rates = [learning_rate(wanted.train, step) for step in range(9)]
    assert figures[-1]["lr"] == pytest.approx(rates[8] / 2)
    assert all(math.isfinite(f["loss"]) for f in figures)


def test_a_loss_that_leaps_is_rolled_back(tmp_path: Path) -> None:
    values = {"on_nonfinite": "rollback", "spike_factor": 20.0, "checkpoint_every_steps": 20}
    wanted = config(tmp_path, steps=60, **values)
    outcome = run(wanted, network=_faulty(build_network(wanted), at=54, factor=1e4))
    assert (outcome.steps, outcome.rollbacks) == (60, 1)


def test_rolling_back_has_an_end(tmp_path: Path) -> None:
    wanted = config(tmp_path, on_nonfinite="rollback", checkpoint_every_steps=2)
    network = build_network(wanted)
    calls = iter(range(10**9))
    network.register_forward_hook(
        lambda _module, _given, output: output * math.nan if next(calls) >= 5 else None
    )
    with pytest.raises(DerainError, match=r"not finite.*3 times"):
        run(wanted, network=network)
    assert checkpoint.newest(wanted.folder) is not None


def test_a_run_that_is_asked_to_stop_saves_and_can_go_on(tmp_path: Path) -> None:
    wanted = config(tmp_path, steps=10**6, checkpoint_every_steps=10**6, ema_decay=None)
    figures: list[Mapping[str, float]] = []
    folder = wanted.folder
    with pytest.raises(StoppedError, match="--resume run") as stopped:
        run(wanted, figures, interrupt=_AfterSteps(folder, 4))
    assert stopped.value.exit_code == 143
    saved = checkpoint.newest(folder)
    assert saved is not None
    assert saved.state.step == len(figures) == len(ledger(tmp_path))


class _AfterSteps(Interrupt):
    """Asks to stop through the run's folder, as another process would."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder)
        self._folder, self._left = folder, steps

    def stop(self) -> bool:
        self._left -= 1
        if self._left == 0:
            ask_to_stop(self._folder)
        return super().stop()


def test_a_warned_run_saves_at_once_and_goes_on(tmp_path: Path) -> None:
    wanted = config(tmp_path, checkpoint_every_steps=10**6)
    outcome = run(wanted, interrupt=Interrupt(warned=lambda: True, every_s=0))
    assert outcome.steps == 9
    kept = sorted(int(path.name[5:]) for path in (tmp_path / "run/checkpoints").iterdir())
    assert len(kept) == 2
    assert kept[0] <= 3


@pytest.mark.parametrize("step", [2, 3, 4, 5, 6])
def test_a_warning_is_heard_whichever_step_it_falls_on(tmp_path: Path, step: int) -> None:
    calls = iter(range(10**9))
    wanted = config(tmp_path, steps=16, checkpoint_every_steps=10**6, log_every_steps=5)
    run(wanted, interrupt=Interrupt(warned=lambda: next(calls) >= step, every_s=0))
    kept = sorted(int(path.name[5:]) for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept[0] < kept[1] == 16


def test_other_datasets_are_refused(unbroken: tuple[Path, Outcome, list]) -> None:
    with pytest.raises(UsageError, match=r"data\.train had the manifests abc"):
        a_run(config(unbroken[0]), [], manifests=["other"])


def test_a_loss_that_is_not_finite_stops_and_saves_nothing(tmp_path: Path) -> None:
    broken = config(tmp_path, checkpoint_every_steps=9, log_every_steps=1)
    network = build_network(broken)
    with torch.no_grad():
        next(p for p in network.parameters() if p.requires_grad).fill_(math.nan)
    with pytest.raises(DerainError, match="step 1 is not finite"):
        run(broken, network=network)
    assert checkpoint.newest(broken.folder) is None


def _hang(_number: int, _world: int, folder: Path) -> None:
    def report(done: int, _figures: Mapping[str, float]) -> None:
        if done == 3:
            _wait_for_ever()

    wanted = config(folder, hang_timeout_s=1.0)
    loop = replace(a_run(wanted, []), report=report).loop()
    follow(loop, loader(wanted).batch, wanted.train)


def _wait_for_ever() -> None:
    threading.Event().wait()


def test_a_process_that_hangs_writes_where_and_ends(tmp_path: Path) -> None:
    with pytest.raises(mp.ProcessExitedException) as ended:
        ranks(_hang, 1, tmp_path)
    assert ended.value.exit_code == 1
    assert "_wait_for_ever" in (tmp_path / "run" / "stacks-rank0.txt").read_text()
    assert run(config(tmp_path)).resumed_from_step == 2
    assert not (tmp_path / "run" / "stacks-rank0.txt").exists()
    kept = (tmp_path / "run" / "stacks-rank0-1.txt").read_text()
    assert "_wait_for_ever" in kept
