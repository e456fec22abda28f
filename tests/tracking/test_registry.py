"""The model registry: lineage, champion and challenger, and the addresses of a model."""

import importlib.metadata
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from derain.errors import UsageError
from derain.inference.predictor import load_model_folder
from derain.tracking import registry
from derain.tracking.runs import RunLog
from tests.tracking.conftest import Register
from tests.tracking.samples import EVALUATION, TAGS, TRAIN

CONCURRENT_REGISTRATIONS = """
import json, os, sys
import mlflow
import numpy as np
from derain.tracking import packing
from derain.tracking.registry import register

packing._packages_distributions()  # once, before the forks: it takes a second
uri, folder, run_id, tags, *psnr_y_values = sys.argv[1:]
start, go = os.pipe()
children = []
for psnr_y in psnr_y_values:
    child = os.fork()
    if child == 0:
        os.read(start, 1)
        scores = {"psnr_y": float(psnr_y), "ssim_y": 0.9}
        made = register(
            folder, "raced", run_id=run_id, scores=scores, evaluation_sha256="e", uri=uri,
            tags=json.loads(tags), example=np.zeros((1, 16, 16, 3), np.uint8),
        )
        print(json.dumps([made.version, float(psnr_y), made.alias]), flush=True)
        os._exit(0)
    children.append(child)
os.write(go, bytes(len(psnr_y_values)))
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


def test_the_best_version_on_the_same_images_is_champion(
    register: Register, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="derain.tracking")
    assert register("ranking", 30.0).alias == "champion"
    assert register("ranking", 30.0).alias == "challenger"
    better = register("ranking", 30.1 + 0.2)
    assert (better.alias, better.version) == ("champion", 3)
    other = register("ranking", 45.0, evaluation_sha256=TRAIN)
    assert other.alias == "challenger"
    assert "was measured on other images, so the metrics cannot be compared" in other.reason
    assert other.reason in caplog.text
    assert register("ranking", 45.0, tags=TAGS | {"protocol": "five_set"}).alias == "challenger"
    listed = {v.version: v for v in registry.models(uri) if v.name == "ranking"}
    assert {number: v.aliases for number, v in listed.items() if v.aliases} == {
        3: ("champion",),
        5: ("challenger",),
    }
    assert float(listed[3].tags["psnr_y"]) == 30.1 + 0.2


@pytest.mark.soak
def test_concurrent_registrations_give_the_aliases_of_sequential_ones(
    uri: str, model_folder: Path, run_id: str, client: MlflowClient
) -> None:
    given = [uri, str(model_folder), run_id, json.dumps(TAGS)]
    command = [sys.executable, "-c", CONCURRENT_REGISTRATIONS, *given, "31", "34", "33", "32"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    made = sorted(json.loads(line) for line in printed.splitlines())
    assert [version for version, _, _ in made] == [1, 2, 3, 4]
    best = 0.0
    for _, psnr_y, alias in made:
        assert alias == ("champion" if psnr_y > best else "challenger")
        best = max(best, psnr_y)
    (champion,) = [version for version, psnr_y, _ in made if psnr_y == 34]
    assert client.get_registered_model("raced").aliases["champion"] == champion


def test_every_address_of_a_model_resolves_to_its_folder(
    register: Register, uri: str, model_folder: Path, tmp_path: Path
) -> None:
    with RunLog("addressed", uri=uri) as run:
        (tmp_path / "MLmodel").write_text("flavors: {sklearn: {}}\n")
        run.folder(tmp_path, "other")
    registered = register("addressed", 30.0, run_id=run.run_id)
    weights = (model_folder / "model.safetensors").read_bytes()
    for address in (registered.uri, "models:/addressed@champion", f"runs:/{run.run_id}/model"):
        found = registry.model_folder(address, uri)
        assert (found / "model.safetensors").read_bytes() == weights
        load_model_folder(found)
    for address in ("models:/addressed/9", "models:/addressed@best", f"runs:/{run.run_id}/none"):
        with pytest.raises(UsageError, match="is not in the store"):
            registry.model_folder(address, uri)
    with pytest.raises(UsageError, match=r"not a model of derain-platform.*found None"):
        registry.model_folder(f"runs:/{run.run_id}/other", uri)


def test_a_version_carries_its_lineage(register: Register, client: MlflowClient) -> None:
    registered = register("lineage", 31.5)
    run_id = client.get_model_version("lineage", "1").run_id
    tags = client.get_model_version("lineage", str(registered.version)).tags
    assert TAGS.items() <= tags.items()
    assert tags["run_id"] == run_id
    assert tags["sweep_run_id"] == client.get_parent_run(run_id).info.run_id
    assert tags["package_version"] == importlib.metadata.version("derain-platform")
    assert tags["evaluation_sha256"] == EVALUATION
    outputs = client.get_run(run_id).outputs.model_outputs
    locations = {client.get_logged_model(o.model_id).artifact_location for o in outputs}
    assert client.get_model_version("lineage", "1").source in locations


@pytest.mark.parametrize(
    ("name", "psnr_y", "named"), [("a/b", 30.0, "a/b"), ("diverged", float("nan"), "psnr_y")]
)
def test_an_invalid_name_or_score_is_not_registered(
    register: Register, uri: str, name: str, psnr_y: float, named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        register(name, psnr_y)
    assert name not in {version.name for version in registry.models(uri)}


def test_missing_lineage_tags_are_a_programming_error(register: Register) -> None:
    with pytest.raises(ValueError, match="config_sha256"):
        register("untagged", 30.0, tags={"protocol": "rain13k", "train_manifest_sha256": TRAIN})


@pytest.mark.parametrize(
    "address",
    ["x", "x@", "@champion", "", "x/latest", "x/-1", "x/1/2", "/x/1", "x@a/b", "x/²", f"x/{9**40}"],
)
def test_an_address_of_another_form_says_the_right_one(uri: str, address: str) -> None:
    for ask in (registry.pinned, registry.model_folder):
        with pytest.raises(UsageError, match=r"expected models:/NAME@ALIAS, such as"):
            ask(f"models:/{address}", uri)
