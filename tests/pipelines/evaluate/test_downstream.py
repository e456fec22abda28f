"""evaluate --downstream: from the images of a dataset to the agreement in result and report."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from benchmarks._small import write_dataset
from derain.errors import UsageError, WeightsError
from derain.pipelines.evaluate.detectors import DownstreamSpec, load_downstream
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.evaluate.work.scorer import one_thread

BLOBS = "tests.pipelines.evaluate.found_boxes:Blobs"
BRIGHT = "tests.pipelines.evaluate.found_boxes:Bright"


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A dataset with two bright squares on each clean image, of which rain hides one; and a folder
    with the clean images, as of a method that is perfect."""
    source = tmp_path_factory.mktemp("squares")
    for side in ("rain", "clean"):
        (source / side).mkdir()
    for number in range(3):
        clean = np.full((48, 64, 3), 90, np.uint8)
        clean[8:20, 8:20] = clean[24:40, 30:50] = 250
        rain = clean.copy()
        rain[24:40, 30:50] = 150
        for side, pixels in (("rain", rain), ("clean", clean)):
            Image.fromarray(pixels + number).save(source / side / f"{number}.png")
    return str(write_dataset(source, source / "prepared").folder), source / "clean"


def test_detections_come_back_with_the_clean_image(
    squares: tuple[str, Path], tmp_path: Path
) -> None:
    dataset, clean = squares
    result = evaluate(
        [],
        [dataset],
        results={"perfect": clean},
        downstream=DownstreamSpec(BLOBS),
        out=tmp_path / "out",
        workers=1,
    )
    (measured,) = result["results"][0]["datasets"]
    found = measured["downstream"]
    assert found["clean"]["detections"] == found["derained"]["detections"] == 6
    assert found["derained"]["map"] == pytest.approx(1.0)
    assert found["rainy"]["detections"] == 3
    assert found["rainy"]["map"] == pytest.approx(51 / 101)
    again = evaluate(
        [],
        [dataset],
        results={"perfect": clean},
        downstream=DownstreamSpec(BLOBS),
        out=tmp_path / "out",
        workers=1,
    )
    assert again["cost"]["images"] == 0
    assert again["results"][0]["datasets"] == [measured]


def test_classes_of_a_model_are_in_the_report(
    squares: tuple[str, Path], model: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    result = evaluate(
        model, [squares[0]], downstream=DownstreamSpec(BRIGHT), report=report, workers=1
    )
    found = result["datasets"][0]["downstream"]
    squares_px, hidden_px = 12 * 12 + 16 * 20, 16 * 20
    rest = 48 * 64 - squares_px
    expected = ((squares_px - hidden_px) / squares_px + rest / (rest + hidden_px)) / 2
    assert found["rainy"]["miou"] == pytest.approx(expected)
    assert f"| rainy | {expected:.4g} | 2 |" in report.read_text()


def test_what_is_no_detector_is_refused_before_anything_is_scored(
    squares: tuple[str, Path], model: str, tmp_path: Path
) -> None:
    for name, message in (
        ("nowhere:Detector", "cannot be built"),
        ("yolo", "expected module:Class"),
        ("fcn_resnet50", "--downstream-weights FILE"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(model, [squares[0]], downstream=DownstreamSpec(name))
    missing = str(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="downstream-weights"):
        load_downstream(DownstreamSpec("fcn_resnet50", missing), "cpu")


@pytest.mark.parametrize(
    "name",
    [
        "lraspp_mobilenet_v3_large",
        pytest.param("ssdlite320_mobilenet_v3_large", marks=pytest.mark.soak),
    ],
)
def test_a_network_of_torchvision_takes_its_weights_from_a_file(name: str, tmp_path: Path) -> None:
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    file = tmp_path / "weights.pth"
    torch.save(network.state_dict(), file)
    spec = DownstreamSpec(name, str(file))
    with one_thread():
        found = load_downstream(spec, "cpu")(np.full((40, 60, 3), 128, np.uint8))
    if isinstance(found, dict):
        assert found["boxes"].shape == (len(found["scores"]), 4)
    else:
        assert found.shape == (40, 60)
    assert set(spec.identity()) == {"name", "sha256"}
