"""A sweep under Ray Tune: ranked, reported, registered, with the same metrics every time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from benchmarks._small import write_dataset
from derain import cluster
from derain.config import Config, load_config
from derain.data.synthetic.synthesis import synthesize
from derain.errors import DerainError, OccupiedError
from derain.pipelines.evaluate.verb import evaluate
from derain.tracking import registry, store
from derain.training import checkpoint
from derain.tune import journal
from derain.tune.dry_run import describe
from derain.tune.sweep import sweep

SPACE = {
    "model.ldfps_sigma": {
        "grid": {"low": [0.01, 0.01, 0.01, 0.01], "high": [0.1, 0.1, 0.1, 0.1]},
    },
}
BROKEN = {"train.lr": {"grid": {"usable": 1e-3, "endless": 1e30}}}
"""The second learning rate makes the loss infinite after one step."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the sweeps of this module and of their MLflow store."""
    folder = tmp_path_factory.mktemp("sweeps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        yield folder


def config(tiny: dict[str, Any], place: Path, space: dict[str, Any], **values: Any) -> Config:
    reference = {"source": "a table", "psnr_y": {"low": 12.34}, "ssim_y": {"low": 0.5}}
    tree = {
        **tiny,
        "name": "sweep",
        "output_dir": str(place / "runs"),
        "register": {"name": "net"},
        "sweep": {"space": space, "reference": reference, "concurrent": 1},
        **values,
    }
    return Config.model_validate(tree)


@pytest.fixture(scope="module")
def reported_sets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two prepared test sets of two pairs each."""
    folder = tmp_path_factory.mktemp("test-sets")
    for seed in (1, 2):
        source = folder / f"source-{seed}"
        synthesize(None, source, count=2, seed=seed, density="light", size_px=32, part="test")
        write_dataset(source, folder / f"test-{seed}", shards=1)
    return [str(folder / f"test-{seed}") for seed in (1, 2)]


@pytest.fixture(scope="module")
def first(tiny: dict[str, Any], place: Path, reported_sets: list[str]) -> dict[str, Any]:
    values = {"sweep.cohort": "off", "data.test": reported_sets[0]}
    return sweep(config(tiny, place, SPACE).replaced(values, "test"))


@pytest.fixture(scope="module")
def second(
    tiny: dict[str, Any],
    place: Path,
    first: dict[str, Any],  # noqa: ARG001
    reported_sets: list[str],
) -> dict[str, Any]:
    """The same sweep with other test images, and its trials side by side in one process."""
    values = {"sweep.cohort": 2, "sweep.test_all": True, "data.test": reported_sets[1]}
    return sweep(config(tiny, place, SPACE).replaced(values, "test"))


def cohorts(folder: Path) -> list[list[str]]:
    """For every segment that was started, its own key and those of its cohort."""
    started = [event for event in journal.read(folder) if event["event"] == "started"]
    return [[event["key"], *event["beside"]] for event in started]


@pytest.fixture
def client(place: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")


def test_a_sweep_returns_the_documented_keys(first: dict[str, Any], place: Path) -> None:
    documented = {"name", "profile", "trials", "best", "registered", "report"}
    assert documented <= set(json.loads(json.dumps(first)))
    each = {"name", "params", "seed", "status", "metrics", "input", "seconds", "mlflow_run_id"}
    assert all(each <= set(trial) for trial in first["trials"])
    assert [trial["name"] for trial in first["trials"]] == ["low", "high"]
    assert {trial["status"] for trial in first["trials"]} == {"finished"}
    psnrs = {trial["name"]: trial["metrics"]["psnr_y"] for trial in first["trials"]}
    assert first["best"] == max(psnrs, key=psnrs.__getitem__)
    assert len(set(psnrs.values())) == 2
    inputs = {trial["input"]["psnr_y"] for trial in first["trials"]}
    assert len(inputs) == 1
    assert json.loads((place / "runs" / "sweep" / "sweep.json").read_text()) == first
    saved = load_config(place / "runs" / "sweep" / checkpoint.CONFIG)
    assert saved.sweep is not None


def test_the_best_trial_is_registered(first: dict[str, Any], client: MlflowClient) -> None:
    assert first["registered"] == {"name": "net", "version": 1, "alias": "champion"}
    best = next(trial for trial in first["trials"] if trial["name"] == first["best"])
    version = client.get_model_version("net", "1")
    assert version.run_id == best["mlflow_run_id"]
    assert float(version.tags["psnr_y"]) == best["metrics"]["psnr_y"]
    assert version.tags["sweep_run_id"] == first["mlflow_run_id"]


def test_only_the_best_trial_is_scored_on_the_test_images(
    first: dict[str, Any], client: MlflowClient, reported_sets: list[str]
) -> None:
    tested = {trial["name"]: trial["test"] for trial in first["trials"] if trial["test"]}
    assert tested == {first["best"]: first["test"]}
    best = next(trial for trial in first["trials"] if trial["name"] == first["best"])
    (alone,) = evaluate(best["checkpoint"], reported_sets[:1])["datasets"]
    assert first["test"]["metrics"] == pytest.approx(alone["metrics"], rel=1e-12)
    psnr = first["test"]["metrics"]["psnr_y"]
    version = client.get_model_version("net", "1")
    assert float(version.tags["test_psnr_y"]) == psnr
    assert version.tags["test_sha256"] == alone["manifest_sha256"]
    assert version.tags["chosen_on_test"] == "false"
    assert client.get_run(best["mlflow_run_id"]).data.metrics["test_psnr_y"] == psnr
    assert client.get_run(first["mlflow_run_id"]).data.metrics["best_test_psnr_y"] == psnr
    report = Path(first["report"]).read_text()
    assert f"trial {first['best']} has {psnr:.3f} dB PSNR-Y" in report
    assert "All other metrics here are of the validation images" in report


def test_other_test_images_change_no_choice(
    first: dict[str, Any], second: dict[str, Any], client: MlflowClient
) -> None:
    """Everything that is chosen or ranked is the same; only what is reported differs."""
    assert second["test"]["metrics"] != first["test"]["metrics"]
    assert all(trial["test"] for trial in second["trials"])
    for kept in ("best", "points", "front"):
        assert second[kept] == first[kept]
    versions = [client.get_model_version("net", number).tags for number in "12"]
    assert versions[0]["psnr_y"] == versions[1]["psnr_y"]
    assert versions[0]["test_sha256"] != versions[1]["test_sha256"]


def test_trials_are_nested_in_the_sweeps_run(first: dict[str, Any], client: MlflowClient) -> None:
    parent = client.get_run(first["mlflow_run_id"])
    assert parent.info.status == "FINISHED"
    for trial in first["trials"]:
        child = client.get_run(trial["mlflow_run_id"])
        assert child.info.status == "FINISHED"
        assert client.get_parent_run(child.info.run_id).info.run_id == parent.info.run_id
        assert child.data.metrics["psnr_y"] == trial["metrics"]["psnr_y"]
        assert len(child.inputs.dataset_inputs) == 3
    names = {item.path for item in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/report.md", "report/gallery.html", "report/gallery.png"} <= names


def test_the_report_is_written(first: dict[str, Any]) -> None:
    text = Path(first["report"]).read_text()
    assert "12.34" in text
    assert "Not comparable" in text
    assert "net version 1 as champion" in text
    assert Path(first["report"]).with_suffix(".html").is_file()


def test_a_second_sweep_has_the_same_metrics_to_the_last_digit(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert second["name"] == "sweep-2"
    beside = [sorted(segments) for segments in cohorts(Path(second["folder"]))]
    assert beside == [["high@4", "low@4"]] * 2
    assert cohorts(Path(first["folder"])) == [["low@4"], ["high@4"]]
    same = ("name", "metrics", "input", "weights_sha256", "loss")
    assert [[trial[key] for key in same] for trial in second["trials"]] == [
        [trial[key] for key in same] for trial in first["trials"]
    ]
    assert second["registered"] == {"name": "net", "version": 2, "alias": "challenger"}
    assert second["mlflow_run_id"] != first["mlflow_run_id"]


def test_a_failed_trial_does_not_stop_the_others(
    tiny: dict[str, Any], place: Path, client: MlflowClient
) -> None:
    """Not even if they train in one process."""
    planned = config(tiny, place, BROKEN, name="partly", register=None)
    result = sweep(planned.replaced({"sweep.cohort": 2}, "test"))
    assert [len(cohort) for cohort in cohorts(planned.folder)] == [2, 2]
    usable, endless = result["trials"]
    assert (usable["status"], endless["status"]) == ("finished", "failed")
    assert "not finite" in endless["error"]
    assert endless["metrics"] is None
    assert (result["best"], result["registered"]) == ("usable", None)
    assert f"endless: {endless['error']}" in Path(result["report"]).read_text()
    children = client.search_runs(
        [client.get_run(result["mlflow_run_id"]).info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{result['mlflow_run_id']}'",
    )
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED"]


def test_a_sweep_without_any_result_fails_and_registers_nothing(
    tiny: dict[str, Any], place: Path, client: MlflowClient
) -> None:
    only = {"train.lr": {"grid": {"endless": 1e30}}}
    planned = config(tiny, place, only, name="none", register={"name": "never"})
    with pytest.raises(DerainError, match=r"no trial finished.*not finite") as raised:
        sweep(planned)
    assert raised.value.exit_code == 1
    assert not (planned.folder / "sweep.json").exists()
    assert "never" not in {version.name for version in registry.models()}
    experiment = client.get_experiment_by_name(store.EXPERIMENT)
    parents = client.search_runs([experiment.experiment_id], "run_name = 'none'")
    assert [run.info.status for run in parents] == ["FAILED"]
    (planned.folder / "endless/checkpoints/step-00000001").mkdir(parents=True, exist_ok=True)
    with pytest.raises(OccupiedError, match="holds an unfinished sweep"):
        sweep(planned)


SEARCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tpe": ({"loguniform": [1e-4, 1e-2]}, {"samples": 4, "costs": ["parameters"]}),
    "asha": ({"grid": [1e-4, 1e-3, 3e-3, 1e-2]}, {"asha": {"first_steps": 4, "keep_one_in": 2}}),
    "pbt": (
        {"loguniform": [1e-4, 1e-2]},
        {"samples": 4, "concurrent": 1, "pbt": {"every_steps": 4}},
    ),
}


@pytest.mark.parametrize(
    "search", [*(pytest.param(name, marks=pytest.mark.soak) for name in ("asha", "tpe")), "pbt"]
)
def test_every_search_algorithm_returns_its_best_trial(
    search: str, tiny: dict[str, Any], place: Path
) -> None:
    """Under Ray, with trials that are promoted, paused and continued, copied and perturbed."""
    values, how = SEARCHES[search]
    train = {**tiny["train"], "steps": 8, "eval_every_steps": None}
    tree = {**tiny, "name": search, "output_dir": str(place / "runs"), "train": train}
    tree |= {"sweep": {"space": {"train.lr": values}, "search": search, **how}}
    result = sweep(Config.model_validate(tree))
    ended = {t["name"]: t for t in result["trials"] if t["metrics"]}
    assert result["best"] == max(ended, key=lambda name: ended[name]["metrics"]["psnr_y"])
    taken = [trial["steps"] for trial in ended.values()]
    assert max(taken) == 8
    assert (min(taken) < 8) == (search == "asha")
    drawn = {trial["params"]["train.lr"] for trial in result["trials"]}
    assert all(1e-4 <= rate <= 1e-2 for rate in drawn)


@pytest.mark.soak
def test_a_trial_with_as_many_workers_as_cores_finishes(tiny: dict[str, Any], place: Path) -> None:
    train = {**tiny["train"], "num_workers": cluster.cpus(), "batch_size": cluster.cpus()}
    space = {"train.lr": {"grid": {"low": 1e-4}}}
    result = sweep(config(tiny, place, space, name="wide", register=None, train=train))
    assert [trial["status"] for trial in result["trials"]] == ["finished"]


def test_a_dry_run_changes_nothing(tiny: dict[str, Any], place: Path) -> None:
    planned = describe(config(tiny, place, SPACE, name="planned"))
    assert [trial["name"] for trial in planned["trials"]] == ["low", "high"]
    assert planned["estimate"]["seconds"] > 0
    assert planned["estimate"]["gpu_hours"] == 0
    assert planned["config"]["train"]["cpu_threads"] == 1
    assert not (place / "runs" / "planned").exists()


def test_a_dry_run_reports_what_would_stop_the_sweep(tiny: dict[str, Any], place: Path) -> None:
    nowhere = {"train": "/nowhere", "validation": "/nowhere"}
    planned = config(tiny, place, SPACE, name="hopeless", data=nowhere)
    planned.folder.mkdir(parents=True)
    (planned.folder / "thesis.tex").touch()
    occupied, absent, *_ = describe(planned.replaced({"train.device": "cuda"}, "test"))["warnings"]
    assert "holds something that is not a sweep" in occupied
    assert "/nowhere" in absent


def test_if_no_trial_can_run_the_dry_run_has_no_times(tiny: dict[str, Any], place: Path) -> None:
    if cluster.gpus():
        pytest.skip("needs a machine without GPUs")
    planned = config(tiny, place, SPACE, name="untimed").replaced({"train.device": "cuda"}, "test")
    described = describe(planned)
    assert described["estimate"]["seconds"] is None
    assert "needs 1 GPUs" in described["warnings"][0]
    assert len(described["trials"]) == 2
    with pytest.raises(DerainError, match="GPUs"):
        sweep(planned)
