"""`evaluate --results`: images of other programs, scored like those of a network."""

import copy
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file

from derain.cli.printed.results import plain
from derain.cli.printed.scores import scores as printed_scores
from derain.data.images.decode import encode_png
from derain.data.loading.cache import TarPixels
from derain.data.prepared.manifest import open_prepared
from derain.errors import DataError, OccupiedError, UsageError
from derain.evaluation.protocols import score
from derain.models.published_weights import PUBLISHED, PublishedWeights, tensors_sha256
from derain.pipelines.evaluate.results_method import (
    ResultsMethod,
    parse_arguments,
    parse_results,
    parse_training,
)
from derain.pipelines.evaluate.training_data import parsed, tag_of, trained_on
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.load_model import load_predictor


@pytest.fixture
def written(model: str, dataset: str, tmp_path: Path) -> Path:
    """What the model makes of the dataset, as files that another program could have written."""
    predictor, prepared = load_predictor(model, "cpu"), open_prepared(dataset)
    pixels = TarPixels(prepared)
    folder = tmp_path / "theirs"
    folder.mkdir()
    for at, key in enumerate(prepared.column("key").tolist()):
        (folder / f"{key}_net.png").write_bytes(encode_png(predictor.derain(pixels[at][0])))
    return folder


def test_files_have_the_metrics_of_the_network_that_wrote_them(
    model: str, dataset: str, written: Path, tmp_path: Path
) -> None:
    out, tables = tmp_path / "out", tmp_path / "tables"
    found = evaluate(
        model, [dataset], results={"theirs": written}, out=out, tables=tables, workers=1
    )
    (ours,), (theirs,) = found["datasets"], found["results"][0]["datasets"]
    assert theirs["metrics"] == ours["metrics"]
    assert theirs["per_picture"] == ours["per_picture"]
    assert found["results"][0]["paired_by"] == {"nine": "key + _net"}
    rows = pq.read_table(out / "images.parquet").to_pylist()
    assert [row["model"] for row in rows] == [model] * 9 + ["theirs"] * 9
    assert json.loads((out / "evaluation.json").read_text())["results"] == found["results"]
    assert found["tables"] == [str(path) for path in map(Path, found["tables"]) if path.is_file()]
    with (tables / "measured.csv").open(encoding="utf-8", newline="") as file:
        measured = {row["method"]: row for row in csv.DictReader(file)}
    assert measured["theirs"]["nine_PSNR"] == f"{ours['metrics']['psnr_y']:.6f}"
    assert list(measured) == ["rainy input", Path(model).name, "theirs"]


def test_a_second_call_scores_only_files_that_changed(
    dataset: str, written: Path, tmp_path: Path
) -> None:
    given = {"results": {"theirs": written}, "out": tmp_path / "out", "workers": 1}
    first = evaluate([], [dataset], **given)
    assert (first["model"], first["datasets"], first["cost"]["images"]) == (None, [], 9)
    again = evaluate([], [dataset], **given)
    assert again["cost"]["images"] == 0
    assert again["results"] == first["results"]
    some = sorted(written.iterdir())[0]
    Image.fromarray(np.zeros((33, 41, 3), np.uint8)).save(some)
    changed = evaluate([], [dataset], **given)
    assert changed["cost"]["images"] == 9
    assert changed["results"] != first["results"]


def test_bad_results_are_listed_and_the_others_scored(dataset: str, written: Path) -> None:
    keys = open_prepared(dataset).column("key").tolist()
    files = [written / f"{key}_net.png" for key in keys]
    files[0].unlink()
    files[1].write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(np.zeros((33, 40, 3), np.uint8)).save(files[2])
    shutil.copy(files[3], files[3].with_suffix(".bmp"))
    shutil.copy(files[4], written / "stranger_net.png")
    found = evaluate([], [dataset], results={"theirs": written}, workers=1)
    (theirs,) = found["results"]
    (item,) = theirs["datasets"]
    assert item["pictures"] == 5
    assert [it["key"] for it in theirs["left_out"]] == keys[:4]
    reasons = [it["reason"] for it in theirs["left_out"]]
    expected = ("no result", "damaged", "expected 41x33 px", "2 results")
    for reason, part in zip(reasons, expected, strict=True):
        assert part in reason
    assert theirs["extra"] == {"nine": ["stranger_net.png"]}
    clean = TarPixels(open_prepared(dataset))[5][1]
    direct = score(np.asarray(Image.open(files[5])), clean)
    assert {it["key"]: it["metrics"] for it in item["per_picture"]}[keys[5]] == direct
    printed = plain(printed_scores(found)).splitlines()
    assert printed[0].split()[0] == "method"
    assert "left out, and in no mean: theirs, nine" in printed[2]
    assert "theirs, nine: 1 image of no pair, such as stranger_net.png" in printed[6]


def test_workers_in_another_folder_find_the_files(
    dataset: str, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nine = open_prepared(dataset)
    monkeypatch.chdir(written.parent)
    sent = ResultsMethod("theirs", written.name, {"nine": nine})
    monkeypatch.chdir("/")
    method = copy.deepcopy(sent)  # by the same means as a worker gets it
    key = nine.column("key").tolist()[0]
    levels = method.levels("nine", key, TarPixels(nine)[0][0])
    assert levels.shape == (33, 41, 3)
    with pytest.raises(DataError, match="no folder of results on ten"):
        method.levels("ten", key, levels)


def test_results_of_no_pair_are_refused_before_anything_is_scored(
    dataset: str, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no image"):
        evaluate([], [dataset], results={"none": tmp_path / "none"})


def test_names_and_folders_of_results(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert parse_results(["net=out/x", str(odd)]) == {"net": Path("out/x"), "a=b": odd}
    for wrong in (["=x"], ["net="], ["net=a", "net=b"]):
        with pytest.raises(UsageError, match="--results"):
            parse_results(wrong)


def test_training_data_is_stated_for_methods_that_are_there(dataset: str, written: Path) -> None:
    stated = parse_training(["theirs=rain13k/train", "theirs=own/a"])
    assert [it["dataset"] for it in stated["theirs"]] == ["rain13k", "own"]
    found = evaluate([], [dataset], results={"theirs": written}, stated=stated, workers=1)
    assert found["results"][0]["trained_on"] == stated["theirs"]
    with pytest.raises(UsageError, match="the methods are theirs"):
        evaluate([], [dataset], results={"theirs": written}, stated={"thiers": []})
    with pytest.raises(UsageError, match="expected NAME=DATASET/SPLIT"):
        parse_training(["theirs=rain13k"])


def test_the_model_may_be_missing_only_with_results(dataset: str) -> None:
    assert parse_arguments([dataset], with_results=True) == ([], [dataset])
    assert parse_arguments(["net", dataset], with_results=True) == (["net"], [dataset])
    assert parse_arguments(["a", "b", dataset, "c"], with_results=False) == (
        ["a", "b"],
        [dataset, "c"],
    )
    assert parse_arguments(["a", "none"], with_results=False) == (["a"], ["none"])
    with pytest.raises(UsageError, match="a MODEL is missing"):
        parse_arguments([dataset, "b"], with_results=False)
    for alone in (True, False):
        with pytest.raises(UsageError, match="a prepared dataset is missing"):
            parse_arguments(["net"], with_results=alone)


def test_training_data_is_known_by_dataset_split_and_pairs(model: str, dataset: str) -> None:
    nine = open_prepared(dataset)
    assert parsed(tag_of([nine, nine])) == [{"dataset": "paired", "split": "train", "pairs": 9}] * 2
    assert trained_on(model) is None  # a model folder does not say


def test_training_data_of_imported_published_weights_is_known(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights made here replace the authors', which are not part of the project."""
    digest = tensors_sha256(load_file(Path(model) / "model.safetensors"))
    entry = PublishedWeights("nafnet", "rain100h/train:1254", "here")
    monkeypatch.setitem(PUBLISHED, digest, entry)
    assert trained_on(model) == [{"dataset": "rain100h", "split": "train", "pairs": 1254}]


def test_a_report_goes_into_a_new_folder_and_one_without_room_is_refused_first(
    dataset: str, written: Path, tmp_path: Path
) -> None:
    report, page = tmp_path / "new/r.md", tmp_path / "newer/g.html"
    evaluate([], [dataset], results={"a": written}, report=report, gallery=page, workers=1)
    assert report.is_file()
    assert page.is_file()
    (tmp_path / "x_images").touch()
    with pytest.raises(OccupiedError, match=r"x_images is a file, expected a folder"):
        evaluate([], [dataset], results={"a": written}, report=tmp_path / "x.md", workers=1)
