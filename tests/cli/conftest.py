"""`derainctl` as the tests of the command line call it."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from derain.cli import app
from tests.processes import Done

Derainctl = Callable[..., Done]


@pytest.fixture
def derainctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Derainctl]:
    """Runs a command in the test's folder, in this process, which has imported torch and Ray."""
    logger = logging.getLogger("derain")
    handlers, level = logger.handlers, logger.level

    def call(*arguments: object) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["derainctl", *map(str, arguments)])
        capfd.readouterr()
        stdout = os.dup(1)  # a command redirects it
        try:
            with pytest.raises(SystemExit) as ended:
                app.main()
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    yield call
    logger.handlers = handlers
    logger.setLevel(level)
