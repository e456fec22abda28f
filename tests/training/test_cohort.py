"""A cohort compared with the same runs alone: equal to the bit, resuming, failing members."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import nn

from derain.config import Config
from derain.data.loading.loader import Batch, Position
from derain.errors import DerainError, StoppedError
from derain.training import checkpoint
from derain.training.cohort import Cohort, MemberError, SharedModules
from derain.training.factory import build_network, loss_of
from derain.training.loop import Run, drive
from derain.training.process.device import to_device
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer
from tests.tiny import config, loader

DLS = {"pixel": "power", "schedule": {"kind": "power_anneal"}, "lambda_p": 0.0}
VGG = {"pixel": "l1", "lambda_p": 0.1, "perceptual": "vgg16", "perceptual_weights": "random"}
MEMBERS: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "sigma": {"model.ldfps_sigma": [0.1, 0.1, 0.2, 0.3]},
    "kind": {"model.ldfps_kind": "statistics", "train.ema_decay": None},
    "without": {"model.ldfps_sigma": None},
    "rate": {
        "train.lr": 3e-3,
        "train.warmup_steps": 2,
        "train.constant_share": 0.5,
        "train.weight_decay": 0.1,
    },
    "momentum": {"train.optimizer": {"name": "sgd", "momentum": 0.9}},
    "weight": {"loss.lambda_p": 0.5},
    "dls": {"loss": DLS},
    "vgg": {"loss": VGG},
    "vgg-mse": {"loss": {**VGG, "pixel": "mse"}},
    "seed": {"seed": 5},
    "short": {"train.steps": 4},
    "endless": {"train.lr": 1e30},
}
"""Runs with the same batches: nine steps of 4 from 11 pairs, so the last batch of an epoch is
short. The loss of the last run soon becomes infinite."""
FINITE = [name for name in MEMBERS if name != "endless"]

Metrics = list[Mapping[str, float]]


def members(folder: Path, *names: str, **train: Any) -> list[Config]:
    given = {"checkpoint_every_steps": 9, **train}
    common = config(folder, **given).replaced({"data.seed": 0}, "test")
    return [common.replaced({**MEMBERS[name], "name": name}, "test") for name in names or MEMBERS]


def member(config: Config, metrics: Metrics, shared: SharedModules | None) -> Run:
    network = build_network(config)
    if shared:
        shared.share_frozen(network)
    loss = loss_of(config, network)
    if shared:
        shared.share_frozen(loss)
    return Run(
        config=config,
        trainer=Trainer(config, network, loss, device=torch.device("cpu"), rank=Rank()),
        folder=config.folder,
        report=lambda _, values: metrics.append(dict(values)),
        manifests=["abc"],
        resume=checkpoint.newest(config.folder),
    )


def losses(metrics: Metrics) -> list[dict[str, float]]:
    return [{k: v for k, v in step.items() if k != "steps_per_s"} for step in metrics]


def alone(configs: list[Config]) -> dict[str, Metrics]:
    torch.set_num_threads(1)
    found: dict[str, Metrics] = {each.name: [] for each in configs}
    for each in configs:
        drive(member(each, found[each.name], None), loader(each).batch, each.train)
    return found


def side_by_side(configs: list[Config]) -> tuple[dict[str, Metrics], dict[str, Exception]]:
    torch.set_num_threads(1)
    shared = SharedModules()
    found: dict[str, Metrics] = {each.name: [] for each in configs}
    runs = {c.name: member(c, found[c.name], shared) for c in configs}
    cohort = Cohort(runs, shared)
    cohort.drive(loader(configs[0]).batch, configs[0].train)
    return found, cohort.failed


def digests(config: Config) -> tuple[str, str, int]:
    saved = checkpoint.newest(config.folder)
    assert saved is not None
    files = json.loads((saved.folder / "state.json").read_text())["files"]
    return files["model.safetensors"], files["optimizer.pt"], saved.state.step


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Config], dict[str, Metrics]]:
    configs = members(tmp_path_factory.mktemp("apart"), *FINITE)
    return configs, alone(configs)


def test_every_member_equals_its_run_alone_to_the_bit(
    apart: tuple[list[Config], dict[str, Metrics]], tmp_path: Path
) -> None:
    configs = members(tmp_path, *FINITE)
    found, failed = side_by_side(configs)
    assert not failed
    for each, separate in zip(configs, apart[0], strict=True):
        assert losses(found[each.name]) == losses(apart[1][each.name]), each.name
        assert digests(each) == digests(separate), each.name
        ledgers = [(one.folder / "ledger.jsonl").read_bytes() for one in (each, separate)]
        assert ledgers[0] == ledgers[1]
    assert len({digests(each)[0] for each in configs}) == len(configs)


def test_a_member_can_be_resumed_alone_and_a_run_in_a_cohort(
    apart: tuple[list[Config], dict[str, Metrics]], tmp_path: Path
) -> None:
    """Stopped at different steps, so that those behind catch up first."""
    configs = members(tmp_path, "as-it-is", "sigma", "rate", "seed", checkpoint_every_steps=1)
    side_by_side(configs[:2])
    alone(configs[2:])
    for each, stop in zip(configs, (3, 5, 7, 2), strict=True):
        for path in (each.folder / "checkpoints").iterdir():
            if int(path.name.removeprefix("step-")) > stop:
                (path / "state.json").unlink()
    alone(configs[:1])
    _, failed = side_by_side(configs[1:])
    assert not failed
    whole = {each.name: digests(each) for each in apart[0]}
    for each in configs:
        assert digests(each) == whole[each.name]


def test_a_member_that_fails_leaves_and_the_others_continue(
    apart: tuple[list[Config], dict[str, Metrics]], tmp_path: Path
) -> None:
    configs = members(tmp_path, "as-it-is", "endless", "sigma")
    found, failed = side_by_side(configs)
    assert list(failed) == ["endless"]
    assert "not finite" in str(failed["endless"])
    assert len(found["endless"]) < 9
    whole = {each.name: digests(each) for each in apart[0]}
    for each in (configs[0], configs[2]):
        assert digests(each) == whole[each.name]


class Doubling(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.factor


class Owner(nn.Module):
    """A network with one frozen part."""

    frozen = ("part",)

    def __init__(self) -> None:
        super().__init__()
        self.part = Doubling()


def images() -> Batch[torch.Tensor]:
    rain, clean = torch.rand(2, 4, 3, 8, 8)
    return Batch(rain, clean, ids=torch.arange(4).numpy(), share=1.0, following=Position())


def test_a_frozen_module_is_evaluated_once_per_step_for_each_image() -> None:
    shared, owners = SharedModules(), (Owner(), Owner())
    for owner in owners:
        shared.share_frozen(owner)
    first, second = (owner.part for owner in owners)
    assert first is second
    for step in (1, 2):
        batch = images()
        shared.begin(batch)
        for part in (first, second):
            assert torch.equal(part(batch.rain), batch.rain * 2)
            assert torch.equal(part(batch.clean), batch.clean * 2)
            assert torch.equal(part(batch.rain[:2]), batch.rain[:2] * 2)
        assert first.calls == 3 * step
    other = torch.rand(4, 3, 8, 8)
    assert torch.equal(first(other), other * 2)
    assert torch.equal(second(other), other * 2)
    assert first.calls == 8, "inputs that are not images of the step are not cached"


def test_members_share_one_encoder_and_one_vgg(tmp_path: Path) -> None:
    shared = SharedModules()
    configs = members(tmp_path, "sigma", "vgg", "vgg-mse")
    trainers = [member(each, [], shared).trainer for each in configs]
    assert len({id(trainer.network.encoder) for trainer in trainers}) == 1
    seen: list[torch.Size] = []
    trainers[0].network.encoder.resnet.conv1.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape)
    )
    batch = to_device(loader(configs[0]).batch(Position()), configs[0].train)
    shared.begin(batch)
    for trainer in trainers:
        trainer.step(0, batch)
    assert len(seen) == 3, "rain, clean and the output of the member with an encoder loss"


def test_frozen_modules_that_differ_are_not_shared() -> None:
    shared, one, other = SharedModules(), Owner(), Owner()
    other.part.factor.fill_(3.0)
    shared.share_frozen(one)
    shared.share_frozen(other)
    batch = images()
    shared.begin(batch)
    assert torch.equal(one.part(batch.rain), batch.rain * 2)
    assert torch.equal(other.part(batch.rain), batch.rain * 3)


class FakeRun:
    """A member that takes steps without training, and never ends; notes how it was closed."""

    ended = False

    def __init__(self) -> None:
        self.position = Position()
        self.closed_with: type[BaseException] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.closed_with = kind

    def step(self, batch: Batch[torch.Tensor]) -> None:
        self.position = batch.following


class Vandal(FakeRun):
    """Overwrites the batch, or the features of the frozen part."""

    def __init__(self, target: str, part: nn.Module) -> None:
        super().__init__()
        self._target, self._part = target, part

    def step(self, batch: Batch[torch.Tensor]) -> None:
        overwritten = batch.clean if self._target == "batch" else self._part(batch.rain)
        overwritten.mul_(0)


@pytest.mark.parametrize("target", ["batch", "features"])
def test_a_member_cannot_modify_shared_tensors_unnoticed(target: str, tmp_path: Path) -> None:
    shared, owner, given = SharedModules(), Owner(), config(tmp_path)
    shared.share_frozen(owner)
    cohort = Cohort({"vandal": Vandal(target, owner.part), "other": FakeRun()}, shared)
    with pytest.raises(DerainError, match="in place"):
        cohort.drive(loader(given).batch, given.train)


class Interrupted(FakeRun):
    def step(self, batch: Batch[torch.Tensor]) -> None:  # noqa: ARG002
        raise KeyboardInterrupt


def test_ctrl_c_reaches_every_member(tmp_path: Path) -> None:
    members = {"one": FakeRun(), "two": Interrupted(), "three": FakeRun()}
    given = config(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Cohort(members, SharedModules()).drive(loader(given).batch, given.train)
    assert [member.closed_with for member in members.values()] == [KeyboardInterrupt] * 3


class Fails(FakeRun):
    """Fails with an error, which may have another as its cause."""

    def __init__(self, error: Exception, cause: Exception | None = None) -> None:
        super().__init__()
        self._error, self._cause = error, cause

    def step(self, batch: Batch[torch.Tensor]) -> None:  # noqa: ARG002
        raise self._error from self._cause


ASSERT = RuntimeError("CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ASSERT, None),
        (DerainError("The network fails on an image."), ASSERT),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), None),
        (IndexError("a bug"), None),
        (OSError("the disk is gone"), None),
    ],
)
def test_an_unexpected_error_ends_the_process_and_says_whose_it_is(
    error: Exception, cause: Exception | None, tmp_path: Path
) -> None:
    members = {"one": FakeRun(), "two": Fails(error, cause), "three": FakeRun()}
    given = config(tmp_path)
    with pytest.raises(MemberError) as raised:
        Cohort(members, SharedModules()).drive(loader(given).batch, given.train)
    assert (raised.value.name, raised.value.failed) == ("two", {"two": error})
    closed = [member.closed_with for member in members.values()]
    assert closed == [StoppedError, type(error), StoppedError]


class FailsWhenClosed(FakeRun):
    ended = True

    def __exit__(self, *_: object) -> None:
        raise DerainError("cannot be scored")


def test_an_error_at_the_end_of_a_member_counts_as_its_failure(tmp_path: Path) -> None:
    given = config(tmp_path)
    cohort = Cohort({"one": FailsWhenClosed()}, SharedModules())
    cohort.drive(loader(given).batch, given.train)
    assert str(cohort.failed["one"]) == "cannot be scored"
