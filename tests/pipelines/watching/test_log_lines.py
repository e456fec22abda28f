"""Every line of a worker says whose it is."""

import logging

import pytest

from derain.config import Config
from derain.pipelines.watching.log_lines import log_lines_of
from derain.training.process.distributed import Rank
from tests.tiny import TINY


def config_of(name: str, output_dir: str) -> Config:
    return Config.model_validate({**TINY, "name": name, "output_dir": output_dir})


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Of the handler for workers, without date and time; a test before may have left another."""
    found = capsys.readouterr().err.splitlines()
    return [line.split(" ", 2)[2] for line in found if ", rank " in line]


def test_lines_name_run_and_rank(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("derain.training.loop")
    config = config_of("fast", "/runs")
    before = logging.getLogger("derain").level
    with log_lines_of([config], Rank(1, 2), trials=False):
        log.info("rolled back to step %d", 40)
    log.info("no longer")
    assert lines(capsys) == ["INFO run fast, rank 1 of 2: rolled back to step 40"]
    assert logging.getLogger("derain").level == before


def test_lines_name_sweep_and_trials(capsys: pytest.CaptureFixture[str]) -> None:
    configs = [config_of(name, "/runs/ldfps") for name in ("a", "b")]
    with log_lines_of(configs, Rank(), trials=True):
        logging.getLogger("derain.training.cohort").error("a leaves")
    assert lines(capsys) == ["ERROR trial ldfps/a, ldfps/b, rank 0 of 1: a leaves"]
