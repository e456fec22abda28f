"""The notebook runs from its first cell to its last, and the public functions do what it says."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.repository import ROOT

NOTEBOOK = ROOT / "docs" / "tutorial" / "python.ipynb"


@pytest.mark.soak
@pytest.mark.usefixtures("ray_cluster")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    (tmp_path / "notebook.py").write_text("\n".join(code))
    found: dict[str, Any] = runpy.run_path("notebook.py")
    assert found["derained"].shape == found["rainy"].shape
    assert found["derained"].dtype == found["rainy"].dtype
    (measured,) = found["scores"]["datasets"]
    assert measured["metrics"] == pytest.approx(found["result"]["test"]["metrics"])
