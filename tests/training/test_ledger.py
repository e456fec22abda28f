"""The ledger on a disk that fills up: no half a line stays, and what fits is written later."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from derain.training.ledger import LEDGER, Ledger
from derain.training.process.distributed import Rank


def test_no_half_a_line_stays_on_a_full_disk(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(tmp_path, Rank()) as ledger:
        ledger.rewind(0)
        ledger.write(0, 0, np.arange(4))
        size = (tmp_path / LEDGER).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                ledger.write(1, 0, np.arange(4))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        ledger.write(1, 0, np.arange(4))
    lines = (tmp_path / LEDGER).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1]
