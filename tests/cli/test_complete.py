"""Tab completes names: of datasets, configs, profiles, keys, networks, protocols, runs, models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from derain.tracking import registry


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("prepare rain13", {"rain13k"}),
        ("train nafn", {"nafnet"}),
        ("train nafnet --profile ", {"demo", "paper", "smoke"}),
        ("train nafnet --set train.bet", {"train.betas="}),
        ("import weights.pth out --network re", {"restormer"}),
        ("evaluate net prepared --protocol rgb_", {"rgb_skimage", "rgb_toolbox"}),
        ("train nafnet --resume sec", {"second"}),
        ("export net out --format o", {"onnx"}),
        ("predict mod", {"models:/"}),
        ("init paper/table1", {"paper/table10_lambda_p", "paper/table11_perturbation"}),
    ],
)
def test_names_are_completed(typed: str, expected: set[str], tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    words = f"derainctl {typed}".split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "from derain.cli.app import app; app(prog_name='derainctl')"],
        cwd=tmp_path,
        env={
            **os.environ,
            "_DERAINCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == expected


def test_registered_versions_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    from derain.cli import complete

    version = registry.ModelVersion("net", 3, ("champion",), None, 0, {})
    monkeypatch.setattr(registry, "models", lambda: [version])
    assert complete.models("models:/net") == ["models:/net/3", "models:/net@champion"]
