"""`predict MODEL - --out -`: an image through a pipe."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from derain.data.images.convert import read_odd
from derain.pipelines.load_model import load_predictor
from tests.data.images.odd_images import encoded

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def call(*arguments: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "derain.cli", "predict", *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=False)


def test_an_image_goes_through_a_pipe(trained: Any) -> None:
    model = trained.result["checkpoint"]
    given = encoded(Image.fromarray(PIXELS))
    done = call(model, "-", "--out", "-", "--format", "tiff", given=given)
    assert done.returncode == 0, done.stderr.decode()
    expected = load_predictor(model, "cpu").derain(PIXELS)
    np.testing.assert_array_equal(read_odd(done.stdout, "stdout").levels, expected)


def test_what_a_pipe_cannot_carry_is_refused(trained: Any, tmp_path: Path) -> None:
    model = trained.result["checkpoint"]
    for arguments in (
        ("-", "--out", str(tmp_path)),
        ("a.png", "b.png", "--out", "-"),
        ("-", "--out", "-", "--workers", "2"),
    ):
        done = call(model, *arguments)
        assert done.returncode == 2
        assert b"- is for one image" in done.stderr
    done = call(model, "-", "--out", "-", given=b"no image")
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"not a readable image" in done.stderr
