"""Fixtures of several verbs: one MLflow store, and one finished run recorded in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from derain.config import Config
from derain.tracking.store import prepare_store


@dataclass(frozen=True)
class Trained:
    """A finished run and the result that `train` returned."""

    config: Config
    result: dict[str, Any]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of the store in which all tests here record."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield prepare_store()


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    tiny: dict[str, Any],
    store: str,  # noqa: ARG001
) -> Trained:
    from derain.pipelines.train.verb import train

    tree = {**tiny, "name": "one", "output_dir": str(tmp_path_factory.mktemp("runs"))}
    config = Config.model_validate(tree)
    return Trained(config, train(config))
