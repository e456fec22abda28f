"""Every optimiser trains, and goes on with the same bits after a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from derain.config import Config
from derain.errors import ConfigError
from derain.training.optimisation.optimizer import build_optimizer, load_state
from tests.tiny import config, run


def with_optimizer(folder: Path, chosen: Any, **train: Any) -> Config:
    return config(folder, **train).replaced({"train.optimizer": chosen}, "test")


@pytest.mark.parametrize(
    "chosen",
    ["adam", "sgd", {"name": "sgd", "momentum": 0.9}, "nadam", "radam", "torch.optim:RMSprop"],
    ids=str,
)
def test_a_run_resumes_with_the_same_bits(chosen: Any, tmp_path: Path) -> None:
    whole = run(with_optimizer(tmp_path / "whole", chosen, steps=4))
    halves = with_optimizer(tmp_path / "halves", chosen, steps=4)
    run(halves, until=2)
    assert run(halves).weights_sha256 == whole.weights_sha256
    adamw = run(config(tmp_path / "adamw", steps=4))
    assert adamw.weights_sha256 != whole.weights_sha256


def test_the_keys_of_the_section_are_given_to_those_that_take_them(tmp_path: Path) -> None:
    weights = [nn.Parameter(torch.ones(2, 2))]
    train = config(tmp_path, lr=0.3, betas=[0.5, 0.6], weight_decay=0.25).train
    adamw = build_optimizer(train, weights).param_groups[0]
    assert (adamw["lr"], tuple(adamw["betas"]), adamw["weight_decay"]) == (0.3, (0.5, 0.6), 0.25)
    assert adamw["fused"] is True
    chosen = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}
    sgd = build_optimizer(with_optimizer(tmp_path, chosen, lr=0.3).train, weights)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["weight_decay"]) == (0.9, 0.0)
    muon = build_optimizer(with_optimizer(tmp_path, "muon").train, weights)
    assert isinstance(muon, torch.optim.Muon)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"name": "sgd", "momentun": 1},
            r"`train\.optimizer\.momentun`.*The nearest is `momentum`",
        ),
        ({"name": "adam", "amsgrad": "no"}, r"`train\.optimizer\.amsgrad`: expected a valid bool"),
        ("muon", "cannot be built.*Muon only supports 2D"),
        ("collections:OrderedDict", "cannot be built"),
        ("no_steps:Nothing", "expected a subclass of torch.optim.Optimizer, found Nothing"),
        ("nowhere:Step", "cannot be imported"),
    ],
)
def test_what_cannot_be_built_is_refused(
    chosen: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "no_steps.py").write_text(
        "class Nothing:\n    def __init__(self, params, **_): pass\n"
    )
    with pytest.raises(ConfigError, match=message):
        build_optimizer(with_optimizer(tmp_path, chosen).train, [nn.Parameter(torch.ones(4))])


def test_one_that_the_installed_torch_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.optim, "NAdam")
    with pytest.raises(
        ConfigError, match=r"torch \S+ has no nadam. It has adamw, adam, sgd, radam"
    ):
        build_optimizer(with_optimizer(tmp_path, "nadam").train, [nn.Parameter(torch.ones(4))])


def test_a_state_of_another_run_keeps_the_values_of_this_config(tmp_path: Path) -> None:
    """As a member of a population that goes on from the best one's checkpoint."""
    weight = nn.Parameter(torch.ones(2, 2))
    one, other = (config(tmp_path, weight_decay=decay).train for decay in (0.1, 0.2))
    saved = build_optimizer(one, [weight])
    weight.grad = torch.ones(2, 2)
    saved.step()
    mine = build_optimizer(other, [weight])
    load_state(mine, saved.state_dict(), other)
    assert mine.param_groups[0]["weight_decay"] == 0.2
    assert mine.state[weight]["step"] == 1
