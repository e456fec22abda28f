"""Random weights: their scale, their seed, and that every CPU draws the same ones."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from derain.models import fingerprint
from derain.models.encoders.clip_resnet import CLIPResNetEncoder
from derain.models.encoders.random_weights import fill_uniform
from tests.models.encoders.small_random import described
from tests.repository import ROOT


def test_uniform_weights_have_the_stated_variance():
    weight = torch.empty(64, 32, 3, 3)
    fill_uniform(weight, 2.0, torch.Generator().manual_seed(0))
    assert weight.mean().item() == pytest.approx(0.0, abs=1e-3)
    assert weight.var().item() == pytest.approx(2.0 / (32 * 9), rel=0.02)


@pytest.mark.parametrize("layers", [(1, 1, 1), (3, 4, 6, 3)])
def test_random_features_neither_vanish_nor_explode(layers):
    ours = CLIPResNetEncoder("random", layers, width=16)
    smooth = nn.functional.interpolate(torch.rand(4, 3, 12, 12), size=96, mode="bicubic")
    for tap in ours(smooth.clamp(0, 1)):
        assert 0.1 < tap.std() < 3.0


def test_fingerprints_are_the_same_on_another_type_of_cpu():
    """Prompts are encoded on the local CPU; its last bit must not enter the fingerprint."""
    code = (
        "import json; from tests.models.encoders.small_random import described\n"
        "print(json.dumps(described()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
        stdout=subprocess.PIPE,
        check=True,
    )
    *prints, total = described()
    *other_prints, other_total = json.loads(done.stdout)
    assert prints == other_prints
    assert total != other_total


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fingerprint(seeded(5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert fingerprint(seeded(5)) == first
    assert fingerprint(seeded(6)) != first


def seeded(seed):
    return CLIPResNetEncoder("random", (1, 2, 1, 1), 8, seed=seed)
