"""A cluster whose nodes do not share the run's folders is refused before anything starts."""

import re
from pathlib import Path

import pytest

from derain import cluster
from derain.errors import UsageError
from derain.pipelines import shared_places
from derain.pipelines.shared_places import check_places, check_shared_places
from tests.tiny import config


@pytest.fixture
def second_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A second node that sees nothing below `private`; the work runs in this process."""
    private = tmp_path / "private"

    def on_every_node(work, paths):  # type: ignore[no-untyped-def]
        elsewhere = [path.replace(str(private), "/nowhere") for path in paths]
        return {"10.0.0.1": work(paths), "10.0.0.2": work(elsewhere)}

    monkeypatch.setattr(cluster, "node_count", lambda: 2)
    monkeypatch.setattr(shared_places.cluster, "on_every_node", on_every_node)
    return private


@pytest.mark.parametrize("server", [False, True])
def test_folders_of_one_node_alone_are_named(
    second_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: bool
) -> None:
    database = "http://10.0.0.9:5000" if server else f"sqlite:///{second_node}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    with pytest.raises(UsageError, match=r"10\.0\.0\.2 does not see output_dir") as raised:
        check_shared_places(config(second_node / "runs"))
    assert ("the MLflow store" in str(raised.value)) == (not server)
    assert ("MLFLOW_TRACKING_URI=http" in str(raised.value)) == (not server)
    assert not list(tmp_path.rglob(".derain-*"))


def test_shared_folders_are_accepted(
    second_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert second_node
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared/mlflow.db")
    check_shared_places(config(tmp_path / "shared/runs"))


def test_files_that_are_read_are_named_with_their_folders(
    second_node: Path, tmp_path: Path
) -> None:
    (second_node / "in").mkdir(parents=True)
    paths = [second_node / "in/a.png", tmp_path / "b.png"]
    for path in paths:
        path.touch()
    message = f"10.0.0.2 does not see the images ({second_node / 'in'}), which"
    with pytest.raises(UsageError, match=re.escape(message)):
        check_places({"--out": tmp_path / "out"}, [("the images", path) for path in paths])
    check_places({"--out": tmp_path / "out"}, [("the images", paths[1])])


@pytest.mark.usefixtures("ray_cluster")
def test_every_node_is_asked() -> None:
    assert cluster.node_count() == 1
    (answer,) = cluster.on_every_node(shared_places._unseen, ["/", "/etc/passwd"]).values()
    assert answer == [0]
