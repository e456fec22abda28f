"""torch.compile with inductor, which writes C++ and needs a compiler: losses are those of eager.

Without a compiler this fails and is not left out.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from derain.config import Config
from derain.training.factory import build_network
from tests.tiny import assert_close, config, run, without_noise

STEPS, STOP = 12, 5
TOLERANCE = 1e-4
"""Of a loss, after some steps of different rounding."""


def losses(wanted: Config, *, noise: bool) -> tuple[list[float], str]:
    """Of every step, and the digest of the weights at the end."""
    figures: list[Mapping[str, float]] = []
    network = build_network(wanted)
    outcome = run(wanted, figures, network=network if noise else without_noise(network))
    return [each["loss"] for each in figures], outcome.weights_sha256


def test_compiled_losses_are_those_of_eager(tmp_path: Path) -> None:
    """Without LDFPS, whose noise inductor draws another way."""
    found = {}
    for name in ("eager", "compiled"):
        wanted = config(tmp_path / name, steps=STEPS, compile=name == "compiled", clip_norm=0.5)
        began = time.perf_counter()
        found[name] = losses(wanted, noise=False)
        print(f"\n{name}: {time.perf_counter() - began:.0f} s, losses to {found[name][0][-1]:.6f}")
    assert found["compiled"][0] == pytest.approx(found["eager"][0], rel=TOLERANCE)
    assert found["compiled"][1] != found["eager"][1], "equal to the bit: it was not compiled"
    assert_close(tmp_path / "eager", tmp_path / "compiled")


def test_a_compiled_run_is_resumed_to_the_bit(tmp_path: Path) -> None:
    whole, weights = losses(config(tmp_path / "whole", steps=STEPS, compile=True), noise=True)
    cut = config(tmp_path / "cut", steps=STEPS, compile=True)
    run(cut, until=STOP)
    torch.compiler.reset()  # another process would know nothing of the first one's code
    assert losses(cut, noise=True) == (whole[STOP:], weights)
