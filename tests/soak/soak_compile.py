"""torch.compile with inductor: the losses equal those of eager mode.

Inductor writes C++; without a compiler these tests fail, they are not skipped.
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
"""Relative difference of a loss, after some steps with different rounding."""


def train(config: Config, *, noise: bool) -> tuple[list[float], str]:
    """Train a run; return the loss of every step and the SHA-256 of the final weights."""
    reports: list[Mapping[str, float]] = []
    network = build_network(config)
    outcome = run(config, reports, network=network if noise else without_noise(network))
    return [report["loss"] for report in reports], outcome.weights_sha256


def test_compiled_losses_equal_those_of_eager(tmp_path: Path) -> None:
    """Without LDFPS: inductor draws its noise from a different generator."""
    runs = {}
    for name in ("eager", "compiled"):
        compiled = name == "compiled"
        start = time.perf_counter()
        runs[name] = train(
            config(tmp_path / name, steps=STEPS, compile=compiled, clip_norm=0.5), noise=False
        )
        seconds = time.perf_counter() - start
        print(f"\n{name}: {seconds:.0f} s, last loss {runs[name][0][-1]:.6f}")
    assert runs["compiled"][0] == pytest.approx(runs["eager"][0], rel=TOLERANCE)
    assert runs["compiled"][1] != runs["eager"][1], "bit-identical weights: nothing was compiled"
    assert_close(tmp_path / "eager", tmp_path / "compiled")


def test_a_resumed_compiled_run_is_bit_identical(tmp_path: Path) -> None:
    whole, weights = train(config(tmp_path / "whole", steps=STEPS, compile=True), noise=True)
    cut = config(tmp_path / "cut", steps=STEPS, compile=True)
    run(cut, until=STOP)
    torch.compiler.reset()  # as in a new process, which has none of the compiled code
    assert train(cut, noise=True) == (whole[STOP:], weights)
