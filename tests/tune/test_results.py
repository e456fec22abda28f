"""The end of a sweep: its results are on disk whatever becomes of the registration."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from derain.config import Config
from derain.errors import DerainError
from derain.pipelines.train.run_folder import RESULT, read_json
from derain.storage import files
from derain.tracking import registry
from derain.tracking.runs import RunLog
from derain.tracking.store import prepare_store
from derain.tune import space
from derain.tune.journal import VERSION, Journal
from derain.tune.results import SWEEP, finish_sweep
from derain.tune.running.queue import to_journal
from derain.tune.running.worker import Work, perform
from derain.tune.search.base import Outcome, Segment
from tests.storage.faulty_store import BUCKET, FaultyStore


class Own(nn.Module):
    """A network of a user."""

    stride = 1

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 1), nn.Conv2d(width, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return prepare_store()


@pytest.fixture
def planned(tiny: dict[str, Any], tmp_path: Path) -> Config:
    """A sweep of one trial, over a network of the user's own."""
    tree = {
        **tiny,
        "name": "own",
        "output_dir": str(tmp_path / "runs"),
        "model": {"name": f"{__name__}:Own"},
        "sweep": {"space": {"model.width": {"grid": [4]}}},
        "register": {"name": "net"},
    }
    return Config.model_validate(tree)


def finished(config: Config, store: str) -> dict[str, Any]:
    """The end of a sweep whose only trial trains in this process; the journal is its own."""
    config.folder.mkdir(parents=True)
    (trial,) = space.plan(config)
    target = {"uri": store, "parent_run_id": None}
    with RunLog("sweep", uri=store) as record, Journal.open(config.folder) as journal:
        journal.write("plan", version=VERSION, name=config.name, ahead=2, manifests=[])
        segment = Segment((trial,), config.train.steps)
        journal.write("started", **to_journal(segment))
        outcomes = perform(
            Work([trial.name], [trial.config.model_dump(mode="json")], segment.until, target)
        )
        journal.write("ended", key=segment.key, outcomes=[vars(o) for o in outcomes])
        return finish_sweep(config, journal, record, 1.0)


def test_a_network_that_the_sweep_has_trained_is_registered(planned: Config, store: str) -> None:
    result = finished(planned, store)
    assert result["registered"] == {"name": "net", "version": 1, "alias": "champion"}
    assert result["register_error"] is None
    assert json.loads((planned.folder / SWEEP).read_text()) == result
    assert "net version 1 as champion" in Path(result["report"]).read_text()


def test_a_trial_with_the_longest_name_is_trained_and_registered(
    planned: Config, store: str
) -> None:
    space = {"sweep.space": {"model.width": {"grid": {"w" * 300: 4}}}}
    result = finished(planned.replaced(space, "test"), store)
    (trial,) = result["trials"]
    assert len(Path(trial["folder"]).name) == 255
    assert trial["status"] == "finished"
    assert result["register_error"] is None


def test_held_out_images_may_be_in_an_object_store(
    planned: Config,
    store: str,
    object_store: FaultyStore,  # noqa: ARG001
) -> None:
    local, far = Path(planned.data.validation[0]), files.locate(f"s3://{BUCKET}/held_out")
    for path in local.iterdir():
        (far / path.name).write_bytes(path.read_bytes())
    values = {"data.validation": [str(far)], "data.cache_dir": f"{planned.output_dir}-cache"}
    result = finished(planned.replaced(values, "test"), store)
    assert result["register_error"] is None
    assert result["registered"]["version"] == 1


def test_results_do_not_depend_on_the_registration(
    planned: Config, store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The registry is another store here, which does not know the run."""
    other = f"sqlite:///{planned.output_dir}.db"
    prepare_store(other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    result = finished(planned, store)
    assert result["registered"] is None
    checkpoint = result["trials"][0]["checkpoint"]
    command = f"derainctl register {checkpoint} --name net --trust"
    assert command in result["register_error"]
    assert command in caplog.text
    assert json.loads((planned.folder / SWEEP).read_text()) == result
    assert f"Not registered: {result['register_error']}" in Path(result["report"]).read_text()
    assert (planned.folder / "4" / RESULT).is_file()
    assert registry.models(store) == []


def test_results_are_on_disk_before_the_registration(
    planned: Config, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in the registration leaves them, and a resume registers."""

    def killed(*_: object, **__: object) -> None:
        assert read_json(planned.folder / SWEEP)["best"] == "4"
        raise KeyboardInterrupt

    monkeypatch.setattr("derain.tune.results.register", killed)
    with pytest.raises(KeyboardInterrupt):
        finished(planned, store)
    assert (planned.folder / "report" / "report.html").is_file()


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (["paused", "paused"], "2 were started, and all stopped before their last step"),
        ([], "0 were started"),
        (["failed", "failed"], "The first error: killed 0 (1 of 2 failed with another"),
    ],
)
def test_a_sweep_without_a_finished_trial_says_why(
    statuses: list[str], said: str, planned: Config, store: str
) -> None:
    planned = planned.replaced({"sweep.space": {"model.width": {"grid": [4, 5]}}}, "test")
    planned.folder.mkdir(parents=True)
    metrics = {"psnr_y": 1.0, "ssim_y": 0.1}
    with RunLog("sweep", uri=store) as record, Journal.open(planned.folder) as journal:
        for number, (trial, status) in enumerate(zip(space.plan(planned), statuses, strict=False)):
            segment = Segment((trial,), 2)
            journal.write("started", **to_journal(segment))
            outcome = Outcome(trial.name, status, 2, metrics, error=f"killed {number}")
            journal.write("ended", key=segment.key, outcomes=[vars(outcome)])
        with pytest.raises(DerainError, match=re.escape(said)):
            finish_sweep(planned, journal, record, 1.0)
