"""A run resumes to the bit, consumes every sample once, keeps the best, and rolls back."""

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from derain.config import Config
from derain.data.loading.loader import Loader
from derain.data.loading.order import Recipe
from derain.data.loading.prefetch import prefetch
from derain.errors import DerainError, UsageError
from derain.training import checkpoint
from derain.training.factory import build_network
from derain.training.loop import Outcome, drive
from derain.training.optimisation.learning_rate import learning_rate
from tests.tiny import (
    BATCHNORM_NETWORK,
    NETWORK,
    Pixels,
    assert_close,
    config,
    ledger,
    loader,
    make_run,
    run,
)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list]:
    folder = tmp_path_factory.mktemp("unbroken")
    metrics: list[Mapping[str, float]] = []
    return folder, run(config(folder), metrics), metrics


def test_the_same_config_gives_the_same_losses_and_weights(
    unbroken: tuple[Path, Outcome, list], tmp_path: Path
) -> None:
    metrics: list[Mapping[str, float]] = []
    again = run(config(tmp_path), metrics)
    assert [f["loss"] for f in metrics] == [f["loss"] for f in unbroken[2]]
    assert again.weights_sha256 == unbroken[1].weights_sha256


@pytest.mark.parametrize("stop", [1, 2, 3, 6, 8])
def test_a_resumed_run_equals_the_unbroken_one_to_the_bit(
    unbroken: tuple[Path, Outcome, list], tmp_path: Path, stop: int
) -> None:
    run(config(tmp_path))
    for folder in (tmp_path / "run/checkpoints").iterdir():  # killed after `stop` steps
        if int(folder.name.removeprefix("step-")) > stop:
            (folder / "state.json").unlink()
    metrics: list[Mapping[str, float]] = []
    resumed = run(config(tmp_path), metrics)
    assert resumed.resumed_from_step == stop
    assert resumed.weights_sha256 == unbroken[1].weights_sha256
    assert [f["loss"] for f in metrics] == [f["loss"] for f in unbroken[2]][stop:]
    assert (resumed.loss_first, resumed.loss_last) == (
        unbroken[1].loss_first,
        unbroken[1].loss_last,
    )
    assert ledger(tmp_path) == ledger(unbroken[0])


def test_the_seconds_are_counted_over_all_resumes(tmp_path: Path) -> None:
    run(config(tmp_path), until=4)
    run(config(tmp_path))
    saved = checkpoint.newest(tmp_path / "run")
    assert saved is not None
    again = run(config(tmp_path))  # has nothing left to do
    assert again.seconds >= saved.state.seconds > 0


def test_a_resumed_run_keeps_the_error_that_its_schedule_uses(tmp_path: Path) -> None:
    """25 steps, because the exponent changes after the first 20."""

    def adaptive(folder: Path, steps: int) -> Config:
        schedule = {"kind": "progress_adaptive"}
        loss = {"pixel": "power", "schedule": schedule, "perceptual": "none"}
        return config(folder, steps=steps, warmup_steps=1000).replaced({"loss": loss}, "test")

    def totals(metrics: list[Mapping[str, float]]) -> list[float]:
        return [values["loss"] for values in metrics]

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
    run_config = config(tmp_path)
    pairs = np.stack([Pixels()[sample] for sample in range(len(Pixels()))])
    recipe = Recipe(sizes=(len(pairs),), seed=run_config.data_seed)
    metrics: list[Mapping[str, float]] = []
    torch.set_num_threads(1)
    with prefetch(Loader([pairs], recipe, run_config.train.stages), processes) as batch_at:
        trained = make_run(run_config, metrics)
        drive(trained, batch_at, run_config.train)
    assert [f["loss"] for f in metrics] == [f["loss"] for f in unbroken[2]]
    assert trained.outcome().weights_sha256 == unbroken[1].weights_sha256


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


@pytest.mark.parametrize("network", [NETWORK, BATCHNORM_NETWORK], ids=["random", "batchnorm"])
def test_probing_the_memory_changes_nothing(tmp_path: Path, network: dict[str, object]) -> None:
    values = {"model": network, "loss": {"perceptual": "none"}}
    for size in ("auto", None):
        run_config = config(tmp_path / str(size), steps=2, micro_batch_size=size)
        run(run_config.replaced(values, "test"))
    tried, plain = (
        checkpoint.newest(config(tmp_path / name).folder).model() for name in ("auto", "None")
    )
    assert all(torch.equal(tried[name], plain[name]) for name in plain)


def test_a_compiled_network_trains_like_the_eager_one_and_resumes_as_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Dynamo and the traced backward pass; inductor would take minutes to generate code."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    for name, compiled in (("eager", False), ("compiled", True)):
        run_config = config(tmp_path / name, steps=2, compile=compiled).replaced(SMALLER, "test")
        trained = make_run(run_config, [])
        drive(trained, loader(run_config).batch, run_config.train)
        assert hasattr(trained.trainer._forward, "_orig_mod") == compiled
        assert (
            run(run_config.replaced({"train.compile": False, "train.steps": 3}, "test")).steps == 3
        )
    assert_close(tmp_path / "eager", tmp_path / "compiled")


SMALLER = {
    "model": {"name": "prenet", "width": 4, "recursions": 1},
    "loss": {"perceptual": "none"},
}
"""A network that is traced in seconds."""


def test_the_best_checkpoint_stays_and_the_run_ends_when_patience_runs_out(tmp_path: Path) -> None:
    scores = iter([20.0, 25.0, 24.0, 23.0, 22.0])
    metrics: list[Mapping[str, float]] = []
    run_config = config(
        tmp_path, steps=20, eval_every_steps=2, patience_evals=3, checkpoint_every_steps=3,
        keep_checkpoints=1, use_checkpoint="best", log_every_steps=20,
    )  # fmt: skip
    outcome = run(run_config, metrics, validate=lambda _: {"psnr_y": next(scores)})
    assert (outcome.steps, outcome.best) == (10, {"step": 4, "psnr_y": 25.0})
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000010"]
    assert outcome.checkpoint.name == "step-00000004"
    assert [f["psnr_y"] for f in metrics if "psnr_y" in f] == [20.0, 25.0, 24.0, 23.0, 22.0]
    again = run(run_config, validate=lambda _: {"psnr_y": 99.0})  # patience is part of the state
    assert (again.steps, again.best) == (outcome.steps, outcome.best)


def test_patience_runs_out_at_an_evaluation_wherever_the_best_was(tmp_path: Path) -> None:
    """The best one was measured at the end of a run of odd length, which was continued."""
    options = {"eval_every_steps": 2, "patience_evals": 1, "checkpoint_every_steps": 20}
    scores = iter([20.0, 25.0, 24.0])
    scored: dict[str, Any] = {"validate": lambda _: {"psnr_y": next(scores)}}
    assert run(config(tmp_path, steps=3, **options), **scored).best["step"] == 3
    outcome = run(config(tmp_path, steps=20, log_every_steps=20, **options), **scored)
    assert (outcome.steps, outcome.finished, outcome.checkpoint.is_dir()) == (4, True, True)


def test_the_best_is_measured_on_one_validation_set(tmp_path: Path) -> None:
    """Before the first validation, the set may still change."""
    run_config = config(tmp_path, eval_every_steps=2)
    scored: dict[str, Any] = {"validate": lambda _: {"psnr_y": 1.0}}
    run(config(tmp_path), until=1, held_out=("none yet",))
    run(run_config, until=3, held_out=("abc",), **scored)
    with pytest.raises(
        UsageError, match=r"data\.validation had the manifests abc, it now has another"
    ):
        run(run_config, held_out=("another",), **scored)
    assert run(run_config, held_out=("abc",), **scored).best["step"] == 2


def test_a_checkpoint_written_after_a_damaged_one_stays(tmp_path: Path) -> None:
    run(config(tmp_path, checkpoint_every_steps=2, keep_checkpoints=2), until=6)
    damaged = checkpoint.folder_of(tmp_path / "run", 6)
    (damaged / "model.safetensors").write_bytes(b"torn")
    outcome = run(config(tmp_path, checkpoint_every_steps=2, keep_checkpoints=1), until=5)
    assert (outcome.resumed_from_step, outcome.steps) == (4, 5)
    assert checkpoint.steps(tmp_path / "run") == [5]


def test_validation_uses_the_moving_average_and_leaves_training_unchanged(
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
    """The network, whose output is multiplied by a factor in forward pass number `at` only."""
    calls = iter(range(10**9))
    network.register_forward_hook(
        lambda _module, _inputs, output: output * factor if next(calls) == at else None
    )
    return network


def test_a_step_that_is_not_finite_is_rolled_back(tmp_path: Path) -> None:
    metrics: list[Mapping[str, float]] = []
    run_config = config(tmp_path, on_nonfinite="rollback", checkpoint_every_steps=2)
    outcome = run(
        run_config, metrics, network=_faulty(build_network(run_config), at=5, factor=math.nan)
    )
    assert (outcome.steps, outcome.rollbacks) == (9, 1)
    assert [line["step"] for line in ledger(tmp_path)] == list(range(9))
    rates = [learning_rate(run_config.train, step) for step in range(9)]
    assert metrics[-1]["lr"] == pytest.approx(rates[8] / 2)
    assert all(math.isfinite(f["loss"]) for f in metrics)


def test_a_checkpoint_after_a_rollback_says_with_which_config_it_was_trained(
    tmp_path: Path,
) -> None:
    run(config(tmp_path, steps=4))
    resumed = config(tmp_path, on_nonfinite="rollback")
    outcome = run(resumed, network=_faulty(build_network(resumed), at=0, factor=math.nan))
    assert (outcome.resumed_from_step, outcome.rollbacks) == (4, 1)
    newest = checkpoint.newest(resumed.folder)
    assert newest is not None
    assert newest.state.config_sha256 == resumed.digest()


def test_a_loss_spike_is_rolled_back(tmp_path: Path) -> None:
    values = {"on_nonfinite": "rollback", "spike_factor": 20.0, "checkpoint_every_steps": 20}
    run_config = config(tmp_path, steps=60, **values)
    outcome = run(run_config, network=_faulty(build_network(run_config), at=54, factor=1e4))
    assert (outcome.steps, outcome.rollbacks) == (60, 1)


def test_the_number_of_rollbacks_is_limited(tmp_path: Path) -> None:
    run_config = config(tmp_path, on_nonfinite="rollback", checkpoint_every_steps=2)
    network = build_network(run_config)
    calls = iter(range(10**9))
    network.register_forward_hook(
        lambda _module, _inputs, output: output * math.nan if next(calls) >= 5 else None
    )
    with pytest.raises(DerainError, match=r"not finite.*3 times"):
        run(run_config, network=network)
    assert checkpoint.newest(run_config.folder) is not None


def test_other_datasets_are_refused(unbroken: tuple[Path, Outcome, list]) -> None:
    with pytest.raises(UsageError, match=r"data\.train had the manifests abc"):
        make_run(config(unbroken[0]), [], manifests=["other"])


def test_a_loss_that_is_not_finite_stops_and_saves_nothing(tmp_path: Path) -> None:
    broken = config(tmp_path, checkpoint_every_steps=9, log_every_steps=1)
    network = build_network(broken)
    with torch.no_grad():
        next(p for p in network.parameters() if p.requires_grad).fill_(math.nan)
    with pytest.raises(DerainError, match="step 1 is not finite"):
        run(broken, network=network)
    assert checkpoint.newest(broken.folder) is None
