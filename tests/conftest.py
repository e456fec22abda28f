"""Fixtures for tests of several folders: paired folders, prepared datasets, an object store."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jaxtyping import config

from tests.folders import PairedFolder, write_pairs

if TYPE_CHECKING:
    from tests.storage.faulty_store import FaultyStore


def pytest_configure() -> None:
    """Signals as in a terminal: jobs that a shell starts in the background ignore some of them, and
    so would every command that a test starts."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The groups of `make test`, whose two processes take the next group when they are free.

    Ray occupies all cores, so the tests that share one are a group, as are those marked
    `xdist_group("ray")`, which start their own. The others go file by file, or by the folder whose
    conftest.py has what they share.
    """
    for item in items:
        if "ray_cluster" in item.fixturenames:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif item.get_closest_marker("xdist_group") is None:
            path = item.path.relative_to(item.config.rootpath)
            shared = path.parent.name == "tracking"
            item.add_marker(pytest.mark.xdist_group(str(path.parent if shared else path)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a pytest whose xdist ignores the groups: every fixture would be made several times."""
    if session.config.getoption("loadgroup", False):
        lost = [item.nodeid for item in session.items if "@" not in item.nodeid]
        if lost:
            raise pytest.UsageError(f"xdist gave no group to {len(lost)} tests, such as {lost[0]}.")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERAIN_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def paired_folder(tmp_path: Path) -> PairedFolder:
    """Makes folders of pairs; no two images are alike."""

    def make(count: int, *, name: str = "source", width: int = 40, height: int = 32) -> Path:
        return write_pairs(tmp_path / name, count, width=width, height=height)

    return make


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator["FaultyStore"]:
    """A local S3 server that this process uses; tests set its rates of faults."""
    from derain.storage import remote
    from tests.storage.faulty_store import faulty_store

    with faulty_store() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(remote, "_PAUSE_S", 0.01)
        remote._store.cache_clear()
        yield store
        remote._store.cache_clear()


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switches off the shape checks that tests/models switches on for the whole session.

    For tests of the code's own messages to invalid options, and for tracing networks without the
    checks.
    """
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray, shared by all tests that need it."""
    from derain import cluster

    with pytest.MonkeyPatch.context() as patch:
        # A process less for every run; tests/soak/soak_nodes.py has a preemption.
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        with cluster.connected():
            yield


@pytest.fixture(scope="session")
def rain_datasets(
    tmp_path_factory: pytest.TempPathFactory,
    ray_cluster: None,  # noqa: ARG001
) -> tuple[Path, Path]:
    """Two small prepared datasets of rendered rain: 5 training and 2 held-out pairs."""
    from benchmarks._small import rendered_datasets

    return rendered_datasets(tmp_path_factory.mktemp("rain"), train=5, held_out=2, size_px=48)


@pytest.fixture(scope="session")
def tiny(rain_datasets: tuple[Path, Path]) -> dict[str, Any]:
    """The config tree of a run that takes about a second once its worker has started."""
    from tests.tiny import NETWORK, TRAIN

    train, held_out = rain_datasets
    return {
        "name": "tiny",
        "model": NETWORK,
        "data": {
            "train": str(train),
            "validation": str(held_out),
            "cache_dir": str(train.parent / "cache"),
        },
        "train": {**TRAIN, "steps": 4},
        "loss": {"perceptual": "none"},
    }
