"""A run: resumes to the bit, counts every sample, does not depend on the number of ranks."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from derain import checkpoint
from derain.config import Config
from derain.errors import DerainError, UsageError
from derain.ledger import LEDGER
from derain.loop import Outcome
from derain.parallel import Rank
from derain.trainer import build_network
from tests.tiny import a_run, config, run


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


def _rank(number: int, world: int, folder: Path, address: str) -> None:
    dist.init_process_group("gloo", init_method=address, rank=number, world_size=world)
    network = build_network(config(folder))
    values = config(folder, num_workers=world, ema_decay=None).replaced(
        {"model.ldfps_sigma": None}, "test"
    )
    run(values, rank=Rank(number, world), network=_without_noise(network))
    dist.destroy_process_group()


def _without_noise(network: nn.Module) -> nn.Module:
    """LDFPS draws its noise per rank, so it is off where ranks are compared."""
    network.ldfps = nn.Identity()
    return network


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_take_the_step_of_one(tmp_path: Path, world: int) -> None:
    alone = config(tmp_path / "one", ema_decay=None)
    run(alone, network=_without_noise(build_network(alone)))
    several = tmp_path / "several"
    address = f"file://{tmp_path}/meet"
    mp.spawn(_rank, args=(world, several, address), nprocs=world)
    first = checkpoint.newest(tmp_path / "one/run")
    second = checkpoint.newest(several / "run")
    assert first is not None
    assert second is not None
    expected, found = first.model(), second.model()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=2e-3)
    ids = [line["ids"] for line in ledger(tmp_path / "one")]
    shared: list[list[int]] = [[] for _ in ids]
    for line in sorted(ledger(several), key=lambda line: (line["step"], line["rank"])):
        shared[line["step"]] += line["ids"]
    assert shared == ids


def test_other_datasets_are_refused(unbroken: tuple[Path, Outcome, list]) -> None:
    other = a_run(config(unbroken[0]), [], manifests=["other"])
    with pytest.raises(UsageError, match="was trained on abc"):
        next(other.course())


def test_a_loss_that_is_not_finite_stops_and_saves_nothing(tmp_path: Path) -> None:
    broken = config(tmp_path, checkpoint_every_steps=9, log_every_steps=1)
    network = build_network(broken)
    with torch.no_grad():
        next(p for p in network.parameters() if p.requires_grad).fill_(math.nan)
    with pytest.raises(DerainError, match="step 1 is not finite"):
        run(broken, network=network)
    assert checkpoint.newest(broken.folder) is None
