"""An evaluation that is killed goes on where it was."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from derain.inference.predictor import save_model_folder
from derain.pipelines.evaluate.verb import evaluate
from tests.pipelines.evaluate.work.deadly import Slow
from tests.repository import ROOT

RUN = """
import sys
from derain.pipelines.evaluate.verb import evaluate
evaluate(sys.argv[1], [sys.argv[2]], out=sys.argv[3], workers=1, trust=True)
"""
PATIENCE_S = 120


@pytest.mark.soak
def test_what_a_killed_evaluation_has_scored_is_kept(dataset: str, tmp_path: Path) -> None:
    name = f"{Slow.__module__}:{Slow.__name__}"
    model = str(save_model_folder(Slow(), tmp_path / "slow", name, {}))
    out = tmp_path / "out"
    command = [sys.executable, "-c", RUN, model, dataset, str(out)]
    with subprocess.Popen(command, cwd=ROOT) as running:
        until = time.monotonic() + PATIENCE_S
        while not list(out.glob("parts/*/*.parquet")):
            assert running.poll() is None, "it ended before it was killed"
            assert time.monotonic() < until
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    assert not (out / "evaluation.json").exists()

    again = evaluate(model, [dataset], out=out, workers=1, trust=True)
    assert 0 < again["cost"]["images"] < 9
    undisturbed = evaluate(model, [dataset], workers=1, trust=True)
    assert again["datasets"] == undisturbed["datasets"]
