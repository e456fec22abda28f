"""A plug-in that would fail in the first step is refused before it, by one call."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.errors import ConfigError
from derain.training.plugin_checks import check_plugins
from tests.tiny import TINY

SOURCE = """
import itertools
import numpy as np
import torch

def Images(): return lambda output, clean, rain: (output - clean) ** 2
def Detached(): return lambda output, clean, rain: output.detach().mean()
def Other(): return lambda output, clean, rain: torch.ones((), requires_grad=True)
def NotFinite(): return lambda output, clean, rain: output.mean() / 0
def Fails(): return lambda output, clean: output.mean()
def Two(): return lambda output, clean, rain: (output.mean(), clean)

def Text(): return lambda step, steps: "1"
def Negative(): return lambda step, steps: -step
def Counting():
    count = itertools.count()
    return lambda step, steps: next(count)

def Bare(): return lambda progress: 2.0
def Zero(): return lambda progress: [(1.0, 0.0)]

def Wider(): return lambda pair, number: np.concatenate([pair, pair], 2)
def Floats(): return lambda pair, number: pair / 255
def Noise(): return lambda pair, number: pair ^ np.uint8(next(counter) % 256)
counter = itertools.count()

class Forgetful(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr, momentum=0.9)
        self.taken = 0
    def step(self, closure=None):
        self.taken += 1
        for group in self.param_groups:
            for weight in group["params"]:
                weight.data -= group["lr"] * self.taken * weight.grad

class Unsaveable(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.param_groups[0]["rule"] = Unsaveable

class Rows(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["rows"] = weight.grad.flatten()[:2]
"""


@pytest.fixture(autouse=True)
def _parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bad_parts.py").write_text(SOURCE)
    yield
    sys.modules.pop("bad_parts", None)


def check(values: dict[str, Any]) -> None:
    config = Config.model_validate({**TINY, "loss": {"perceptual": "none"}})
    check_plugins(config.replaced(values, "test"))


def power(kind: str) -> dict[str, Any]:
    return {"loss.pixel": "power", "loss.schedule": {"kind": f"bad_parts:{kind}"}}


TWO_RANKS = {"train.parallel": "fsdp2", "train.num_workers": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"loss.terms": ["bad_parts:Images"]},
            r"loss term Images: expected .*; found a torch.float",
        ),
        ({"loss.terms": ["bad_parts:Detached"]}, "found a scalar without a gradient"),
        ({"loss.terms": ["bad_parts:Other"]}, "found a scalar without a gradient for output"),
        ({"loss.terms": ["bad_parts:NotFinite"]}, "loss term NotFinite: .*found (inf|nan|-inf)"),
        ({"loss.terms": ["bad_parts:Fails"]}, "The loss term Fails fails: TypeError"),
        ({"loss.terms": ["bad_parts:Two"]}, "found a tuple"),
        (
            {"loss.terms": ["bad_parts:Gone"]},
            "bad_parts:Gone cannot be imported",
        ),
        ({"train.lr_schedule": "bad_parts:Text"}, "schedule bad_parts:Text: .*found '1' at step 0"),
        ({"train.lr_schedule": "bad_parts:Negative"}, "found -1 at step 1"),
        ({"train.lr_schedule": "bad_parts:Counting"}, "found 0 and 1 at step 0"),
        (power("Bare"), "loss schedule bad_parts:Bare fails: TypeError"),
        (power("Zero"), r"found \[\(1.0, 0.0\)\]"),
        (
            {"data.augment": "bad_parts:Wider"},
            r"found uint8 of the shape \(2, 16, 32, 3\)",
        ),
        ({"data.augment": "bad_parts:Floats"}, "found float64"),
        ({"data.augment": "bad_parts:Noise"}, "other pixels for the same pair and number"),
        ({"train.optimizer": "bad_parts:Forgetful"}, "found other weights after a resume"),
        (
            {"train.optimizer": "bad_parts:Unsaveable"},
            "found a state that a checkpoint cannot hold",
        ),
        ({"train.optimizer": "bad_parts:Rows", **TWO_RANKS}, r"found rows of the shape \(2,\)"),
    ],
)
def test_what_would_fail_in_a_step_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        check(values)
    assert "bad_parts" in str(raised.value) or "loss term" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_term_of_weight_0_is_left_out_and_names_are_distinct() -> None:
    from derain.training.factory import own_terms

    terms = [{"name": "bad_parts:Images"}, {"name": "bad_parts:Images", "weight": 2.0}]
    loss = Config.model_validate({**TINY, "loss": {"terms": [*terms, {**terms[0], "weight": 0}]}})
    assert {name: weight for name, (weight, _) in own_terms(loss.loss).items()} == {
        "Images": 1.0, "Images_2": 2.0
    }  # fmt: skip
