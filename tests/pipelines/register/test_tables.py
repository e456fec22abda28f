"""A registered version and imported published weights, side by side in the papers' tables."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from benchmarks._small import write_dataset
from derain import models
from derain.data.prepared.manifest import write_manifest
from derain.models.published_weights import PUBLISHED, PublishedWeights, tensors_sha256
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.export import import_weights
from derain.pipelines.register.verb import register
from tests.folders import write_pairs

LATEX = shutil.which("pdflatex")
PRENET = {"width": 8, "recursions": 2, "shared_blocks": True}


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model folder of a small PReNet, which takes the place of the authors' weights."""
    network = models.build("prenet", **PRENET)
    entry = PublishedWeights("prenet", "rain100h/train:1254", "here", PRENET)
    monkeypatch.setitem(PUBLISHED, tensors_sha256(network.state_dict()), entry)
    save_file(network.state_dict(), folder / "published.safetensors")
    return str(import_weights(folder / "published.safetensors", folder / "prenet-rain100h")[0])


def rain100h(folder: Path) -> str:
    """A prepared dataset of two pairs that is called like Rain13K's Rain100H."""
    prepared = write_dataset(write_pairs(folder / "pairs", 2, width=48, height=40), folder / "test")
    write_manifest(prepared.folder, replace(prepared.manifest, dataset="rain13k", split="rain100h"))
    return str(prepared.folder)


@pytest.mark.soak
@pytest.mark.skipif(LATEX is None, reason="needs pdflatex (texlive-latex-recommended)")
def test_both_are_rows_of_table_3(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(trained.result["checkpoint"], "small")
    prenet = imported(tmp_path, monkeypatch)
    tables = tmp_path / "tables"
    evaluate([version.uri, prenet], [rain100h(tmp_path)], tables=tables, workers=1)
    for name in ("table3.tex", "tables.html"):
        text = (tables / name).read_text(encoding="utf-8")
        quoted, measured = re.split("Measured", text, maxsplit=1)
        assert "DerainNet" in quoted
        assert "small/1" in measured
        assert "prenet-rain100h" in measured
        assert "trained on rain100h/train (1,254 pairs)" in text
        assert "trained on paired/" in text
    command = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tables, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
