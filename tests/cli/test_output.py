"""What commands print: the results alone on stdout, text aligned, JSON one document."""

import subprocess
import sys

import pytest

from derain.cli import output

NOISY = """
import os
from derain.output import Results

results = Results({as_json})
print("a library prints")
os.write(1, b"a C library prints")
os.system("echo a child prints")
results.show({{"pairs": 3}}, "3 pairs")
"""


@pytest.mark.parametrize(
    ("as_json", "expected"), [(False, "3 pairs\n"), (True, '{\n  "pairs": 3\n}\n')]
)
def test_stdout_has_the_result_alone_whoever_else_prints(as_json: bool, expected: str) -> None:
    code = NOISY.format(as_json=as_json)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == expected
    assert all(f"a {who} prints" in done.stderr for who in ("library", "C library", "child"))


def test_columns_are_aligned_and_end_where_their_text_ends() -> None:
    rows = [
        {"name": "a", "version": 10, "aliases": ("champion",), "tags": {"psnr_y": "31.234567"}},
        {"name": "longer", "version": 2, "aliases": (), "tags": {"profile": "demo"}},
    ]
    assert output.versions(rows).splitlines() == [
        "model   version  aliases   PSNR-Y  trained with",
        "a       10       champion  31.234",
        "longer  2                          demo",
    ]


def test_counts_of_prompts_stand_under_their_prompts() -> None:
    found = {"prompts": ["light rain", "heavy rain"], "counts": {"light": [3, 1], "heavy": [0, 4]}}
    assert output.matches(found, "density").splitlines() == [
        "density  light rain  heavy rain",
        "light    3           1",
        "heavy    0           4",
    ]


def test_a_plan_names_what_would_stop_it_and_what_is_done() -> None:
    trials = [("low", {"lr": 1}, "finished"), ("high", None, "planned")]
    planned = {
        "name": "search",
        "profile": "demo",
        "estimate": {"seconds": 90.0, "steps": 4000, "gpu_hours": 0.5, "disk_bytes": 2**30},
        "trials": [dict(zip(("name", "params", "state"), trial, strict=True)) for trial in trials],
        "warnings": ["no data"],
    }
    assert output.plan_summary(planned, "config").splitlines() == [
        "search, profile demo: 2 trials, 4,000 steps, about 2 min, 0.5 GPU-hours, "
        "1.00 GiB of checkpoints",
        "Would stop: no data",
        "  low: {'lr': 1} (finished)",
        "  high: depends on the results of earlier trials",
        "",
        "config",
    ]
