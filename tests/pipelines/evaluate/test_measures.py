"""LPIPS beside a protocol, several models at once, and an evaluation as an MLflow run."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from derain import models
from derain.cli.printed.results import plain
from derain.cli.printed.scores import scores as printed_scores
from derain.data.prepared.manifest import open_prepared
from derain.errors import UsageError
from derain.evaluation.lpips import Lpips, LpipsFiles
from derain.inference.predictor import save_model_folder
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.evaluate.work.images import Images
from derain.tracking.store import tracking_uri
from tests.pipelines.evaluate.conftest import NETWORK

CHANNELS = (64, 192, 384, 256, 256)


@pytest.fixture(scope="module")
def lpips(tmp_path_factory: pytest.TempPathFactory) -> LpipsFiles:
    """Random weights."""
    folder = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    save_file(torchvision.models.alexnet(weights=None).state_dict(), folder / "alexnet.safetensors")
    heads = {f"lin{at}.model.1.weight": torch.rand(1, n, 1, 1) for at, n in enumerate(CHANNELS)}
    save_file(heads, folder / "heads.safetensors")
    return LpipsFiles(str(folder / "alexnet.safetensors"), str(folder / "heads.safetensors"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    network = models.build("nafnet", **NETWORK)
    return str(
        save_model_folder(network, tmp_path_factory.mktemp("b") / "other", "nafnet", NETWORK)
    )


def test_lpips_is_measured_beside_a_protocol(
    model: str, dataset: str, lpips: LpipsFiles, tmp_path: Path
) -> None:
    """The rainy images' values are those of a direct computation; the report has them."""
    report = tmp_path / "report.md"
    result = evaluate(
        model, [dataset], lpips=lpips, report=report, tables=tmp_path / "tables", workers=1
    )
    (item,) = result["datasets"]
    assert list(item["by_protocol"]) == ["rain13k", "lpips_alex"]
    images = Images(open_prepared(dataset), [])
    measure = Lpips(lpips.backbone, lpips.heads)
    expected = []
    for at in range(9):
        rain, clean = images[at]
        assert clean is not None
        expected.append(measure(rain, clean))
    found = item["by_protocol"]["lpips_alex"]
    assert found["input"]["lpips_alex"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert found["metrics"]["lpips_alex"] > 0
    assert "LPIPS 0.1" in report.read_text()
    assert "lpips_alex" in (tmp_path / "tables" / "further_metrics.csv").read_text()
    with pytest.raises(UsageError, match="--lpips ALEXNET HEADS"):
        evaluate(model, [dataset], protocols=["lpips_alex"])
    with pytest.raises(UsageError, match="LPIPS needs torchvision's AlexNet"):
        evaluate(model, [dataset], lpips=LpipsFiles(str(tmp_path / "none.pth"), lpips.heads))


def test_several_models_are_scored_as_each_alone(model: str, other: str, dataset: str) -> None:
    together = evaluate([model, other], [dataset], workers=1)
    assert together["name"] == Path(model).name
    (second,) = together["results"]
    assert (second["model"], second["name"]) == (other, "other")
    assert together["datasets"] == evaluate(model, [dataset], workers=1)["datasets"]
    assert second["datasets"] == evaluate(other, [dataset], workers=1)["datasets"]
    text = plain(printed_scores(together))
    assert Path(model).name in text
    assert "other" in text


def test_an_evaluation_is_recorded_as_a_run(
    model: str, other: str, dataset: str, tmp_path: Path
) -> None:
    files = {"report": tmp_path / "a.md", "gallery": tmp_path / "b.html"}
    result = evaluate([model, other], [dataset], **files, track=True, workers=1)
    client = mlflow.MlflowClient(tracking_uri())
    run = client.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    (measured,) = result["results"][0]["datasets"]
    name = f"other/{measured['name']}/rain13k/psnr_y"
    assert run.data.metrics[name] == pytest.approx(measured["metrics"]["psnr_y"])
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == [measured["name"]]
    assert {"a.md", "b.html", "evaluation.json", "a_images"} <= {
        item.path for item in client.list_artifacts(result["run_id"])
    }
