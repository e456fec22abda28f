"""A registered model: what it holds, and where MLflow can load it."""

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

from derain import models
from derain.errors import StorageError
from derain.inference.predictor import Predictor, load_model_folder
from derain.tracking import packing, registry
from derain.tracking.runs import RunLog
from tests.tracking.conftest import Register
from tests.tracking.samples import BATCH, EVALUATION, NETWORK, TAGS

EXPERTS = {"widths": [8, 8], "depths": [1, 1], "heads": [1, 1], "mgca": ["none"]}
SMALL_CLIP = {
    "encoder_weights": "random",
    "encoder_dim": 16,
    "encoder_width": 64,
    "encoder_layers": 1,
    "encoder_text_width": 64,
    "encoder_text_layers": 1,
}

OLD_PREDICTOR = """
import json
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file
from derain import models
from derain.errors import DataError, DerainError, OccupiedError, UsageError, WeightsError

class _PyfuncModel:
    def __init__(self, network):
        self._network = network

    def predict(self, model_input, params=None):
        return np.stack([self._derain(image) for image in model_input])

    def _derain(self, image):
        height, width = image.shape[:2]
        margins = [(0, -side % self._network.stride) for side in (height, width)]
        padded = np.pad(image, [*margins, (0, 0)], mode="reflect")
        rainy = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            clean = self._network(rainy)[0, :, :height, :width].clamp(0, 1) * 255
        return np.rint(clean.permute(1, 2, 0).numpy()).astype(np.uint8)

def _load_pyfunc(path):
    described = json.loads(Path(path, "network.json").read_text())
    if described["name"] not in models.MODELS or models.is_user_defined(described["name"]):
        raise WeightsError(path)
    network = models.build(described["name"], **described["options"])
    network.load_state_dict(load_file(Path(path, "model.safetensors")))
    return _PyfuncModel(network.eval())
"""
"""The loader in models registered before the modules moved into folders, in short: it needs
`derain.models` with what that imports, of its own copy or of the installed package."""

LOADER = """
import importlib, json, os, sys
uri, package, old, *site_packages = sys.argv[1:]
sys.path += site_packages  # with -S these are not in it, and no .pth file adds our package
import mlflow.pyfunc
import numpy as np
import torch

mlflow.set_tracking_uri(uri)
new = "models:/loadable@champion"
cases = {
    "new": (new, False, False),
    "old": (old, False, False),
    "old, installed": (old, True, False),
    "old, imported": (old, True, True),
}
for case, (model, is_installed, is_imported) in cases.items():
    child = os.fork()  # importing torch and MLflow takes seconds
    if child == 0:
        if is_installed:
            sys.path.insert(0, package)
        if is_imported:
            importlib.import_module("derain.models")
        np.save(f"{case}.npy", mlflow.pyfunc.load_model(model).predict(np.load("batch.npy")))
        files = {name: getattr(m, "__file__", None) for name, m in sys.modules.items()}
        print(json.dumps([case, files]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, case
"""


def test_a_registered_model_has_no_pickled_files(
    register: Register, client: MlflowClient, capfd: pytest.CaptureFixture[str]
) -> None:
    registered = register("contents", 30.0)
    assert capfd.readouterr().out == ""
    location = client.get_model_version_download_uri("contents", str(registered.version))
    folder = Path(location.removeprefix("file://").replace("%20", " "))
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}
    assert "loader_module: derain.inference.predictor" in (folder / "MLmodel").read_text()
    assert (folder / "input_example.json").stat().st_size < 20_000
    assert not list((folder / "code" / "derain").glob("__init__.py"))


def test_the_requirements_include_all_imports_of_the_packed_code(tmp_path: Path) -> None:
    """Those at the top of a module are needed by every network, those in functions by some."""
    always, in_all = set(), set()
    for file in packing._copy_code(tmp_path).rglob("*.py"):
        tree = ast.parse(file.read_text())
        in_all |= _imports(ast.walk(tree))
        always |= _imports(tree.body)
    ours = {name for name in in_all if name.startswith("derain.")}
    allowed = {Path(packed).stem for packed in packing.PACKED_MODULES}
    assert {name.split(".")[1] for name in ours} <= allowed
    assert _distributions(always) == set(packing.BASE_REQUIREMENTS)
    assert _distributions(in_all - always) <= {"torchvision", "open_clip_torch"}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("prenet", {"width": 4, "recursions": 1}, set()),
        ("fclip_unet", NETWORK, {"open_clip_torch"}),
        ("fclip_unet", {**NETWORK, "encoder": "imagenet_resnet50", "encoder_width": None},
         {"torchvision"}),
        ("clip_rpn", {**EXPERTS, "routing": "single"}, set()),
        ("clip_rpn", {**EXPERTS, **SMALL_CLIP, "routing": "hard"}, {"open_clip_torch"}),
        ("torchvision.ops:Conv2dNormActivation", {"in_channels": 3, "out_channels": 3},
         {"torchvision"}),
    ],
)  # fmt: skip
def test_a_version_requires_what_its_network_is_built_of(
    name: str, options: dict[str, Any], expected: set[str]
) -> None:
    listed = packing.requirements(models.build(name, **options))
    names = {requirement.partition("==")[0] for requirement in listed}
    assert names == {*packing.BASE_REQUIREMENTS, *expected}
    assert not any("+" in requirement for requirement in listed)


def _distributions(names: set[str]) -> set[str]:
    theirs = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"derain"}
    return {importlib.metadata.packages_distributions()[name][0] for name in theirs}


def _imports(nodes: Iterable[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_a_model_version_loads_where_our_package_is_imported(
    register: Register, client: MlflowClient, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered = register("beside", 30.0)
    location = client.get_model_version_download_uri("beside", str(registered.version))
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code in front
    model = mlflow.pyfunc.load_model(location)
    np.testing.assert_array_equal(model.predict(BATCH), _derained(model_folder))


@pytest.fixture(scope="module")
def old_model(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """An MLflow model in the layout before the modules moved into folders."""
    folder = tmp_path_factory.mktemp("old")
    code = folder / "code" / "derain"
    code.mkdir(parents=True)
    (code / "predictor.py").write_text(OLD_PREDICTOR)
    shutil.copy2(packing.PACKAGE / "errors.py", code)
    for room in ("models", "plugins"):
        shutil.copytree(packing.PACKAGE / room, code / room)
    mlflow.pyfunc.save_model(
        folder / "packed",
        loader_module="derain.predictor",
        data_path=str(model_folder),
        code_paths=[str(code)],
        pip_requirements=["torch"],
    )
    return folder / "packed"


@pytest.fixture(scope="module")
def loaded(
    register: Register,
    uri: str,
    model_folder: Path,
    old_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, str]]:
    """For each case of LOADER the files of the modules; every prediction was the expected one.

    The interpreter has torch and MLflow, but our package only if the case installs it.
    """
    register("loadable", 30.0)
    folder = tmp_path_factory.mktemp("loaded")
    np.save(folder / "batch.npy", BATCH)
    (folder / "package").mkdir()
    (folder / "package" / "derain").symlink_to(packing.PACKAGE)
    site_packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    given = [uri, str(folder / "package"), str(old_model), *site_packages]
    command = [sys.executable, "-S", "-c", LOADER, *given]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    files = dict(json.loads(line) for line in ended.stdout.splitlines())
    for case in files:
        np.testing.assert_array_equal(np.load(folder / f"{case}.npy"), _derained(model_folder))
    return files


def test_a_model_version_loads_where_our_package_is_not_installed(
    loaded: dict[str, dict[str, str]],
) -> None:
    files = loaded["new"]
    assert "code/derain" in files["derain.inference.predictor"]
    assert not {"ray", "derain.training", "derain.tune", "derain.tracking"} & set(files)


@pytest.mark.parametrize("case", ["old", "old, installed", "old, imported"])
def test_a_model_registered_before_the_move_still_loads(
    loaded: dict[str, dict[str, str]], old_model: Path, case: str
) -> None:
    """With its own copy of our code, but with the modules that are imported already."""
    carried = str(old_model / "code")
    assert loaded[case]["derain.predictor"].startswith(carried)
    assert loaded[case]["derain.models"].startswith(carried) == (case != "old, imported")


def test_our_commands_load_a_model_registered_before_the_move_with_the_installed_code(
    old_model: Path, model_folder: Path, uri: str
) -> None:
    with RunLog("old", uri=uri) as run:
        run.folder(old_model, "model")
    found = registry.model_folder(f"runs:/{run.run_id}/model", uri)
    np.testing.assert_array_equal(_derained(found), _derained(model_folder))


def _derained(model_folder: Path) -> np.ndarray:
    predictor = Predictor(load_model_folder(model_folder))
    return np.stack([predictor.derain(image) for image in BATCH])


def test_the_git_commit_is_that_of_the_checkout_that_tracks_the_file(tmp_path: Path) -> None:
    def git(*command: str) -> str:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        done = subprocess.run(
            ["git", *identity, *command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    tracked, installed = tmp_path / "tracked.py", tmp_path / "installed.py"
    git("init")
    tracked.write_text("1")
    git("add", "tracked.py")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")
    installed.write_text("1")
    assert packing.git_commit(tracked) == git("rev-parse", "HEAD")
    assert packing.git_commit(installed) is None
    tracked.write_text("2")
    assert packing.git_commit(tracked) == git("rev-parse", "HEAD") + "-dirty"


def test_mlflow_finds_a_model_by_its_metrics_params_and_type(
    register: Register, client: MlflowClient, run_id: str
) -> None:
    registered = register("searched", 47.5)
    experiments = [client.get_run(run_id).info.experiment_id]
    for query in ("metrics.psnr_y > 47", "metrics.psnr_y > 47 AND params.output = 'residual'"):
        (found,) = client.search_logged_models(experiments, query)
        assert found.model_type == "fclip_unet"
        assert found.tags["evaluation_sha256"] == EVALUATION
        assert found.params["decoder_widths"] == "[8, 8, 8, 8, 8]"
        assert {metric.key: metric.value for metric in found.metrics} == {
            "psnr_y": 47.5,
            "ssim_y": 0.9,
        }
        version = client.get_model_version("searched", str(registered.version))
        assert version.tags["logged_model_id"] == found.model_id
        assert version.source == found.artifact_location
        linked = json.loads(found.tags["mlflow.modelVersions"])
        assert linked == [{"name": "searched", "version": registered.version}]


def test_a_refusing_artifact_store_is_one_message(
    model_folder: Path, uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    place = f"{(tmp_path / 'a file').as_uri()}/artifacts"
    client.create_experiment("no place for models", artifact_location=place)
    with RunLog("placeless", uri=uri, experiment="no place for models") as run:
        pass
    given = {"scores": {"psnr_y": 30.0, "ssim_y": 0.9}, "evaluation_sha256": EVALUATION}
    with pytest.raises(StorageError, match=r"cannot be stored in .*a%20file/artifacts"):
        registry.register(
            model_folder,
            "placeless",
            run_id=run.run_id,
            tags=TAGS,
            example=BATCH,
            uri=uri,
            **given,
        )


@pytest.fixture(scope="module")
def served(register: Register, client: MlflowClient) -> Iterator[TestClient]:
    """MLflow's scoring server for a registered version, in this process."""
    registered = register("served", 30.0)
    location = client.get_model_version_download_uri("served", str(registered.version))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        yield TestClient(scoring_server.init(mlflow.pyfunc.load_model(location)))


@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_the_scoring_server_derains_levels(
    served: TestClient, model_folder: Path, key: str
) -> None:
    answer = served.post("/invocations", json={key: BATCH.tolist()})
    assert answer.status_code == 200
    np.testing.assert_array_equal(answer.json()["predictions"], _derained(model_folder))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((BATCH / 255).tolist(), "Multiply floats in .* by 255"),
        (BATCH.astype(float).tolist(), "found float64"),
        ((BATCH.astype(int) + 100).tolist(), "levels in 0..255, found numbers from 1"),
        ((BATCH.astype(int) - 255).tolist(), "found numbers from -255"),
        (BATCH[0].tolist(), r"shape \(batch, height, width, 3\)"),
        (BATCH[..., :1].tolist(), r"shape \(batch, height, width, 3\)"),
        ([BATCH[0].tolist(), BATCH[0, :5].tolist()], "inhomogeneous"),
        ([[[["a", "b", "c"]]]], "found <U1"),
        ([], "non-empty"),
    ],
)
def test_the_scoring_server_refuses_everything_else(
    served: TestClient, batch: list[Any], message: str
) -> None:
    answer = served.post("/invocations", json={"inputs": batch})
    assert answer.status_code == 400
    assert re.search(message, answer.json()["message"])
