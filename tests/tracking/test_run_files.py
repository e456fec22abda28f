"""A run's text files are found by the run's id, a version or an alias."""

from pathlib import Path

import pytest

from derain.errors import UsageError
from derain.tracking.run_files import run_text
from derain.tracking.runs import RunLog
from derain.tracking.store import client_of


def test_the_text_of_a_run_by_id_version_and_alias(uri: str, tmp_path: Path) -> None:
    with RunLog("texts", uri=uri, outbox=tmp_path) as run:
        run.text("config.yaml", "name: a\n")
    client = client_of(uri)
    client.create_registered_model("texts")
    client.create_model_version("texts", source=str(tmp_path), run_id=run.run_id)
    client.set_registered_model_alias("texts", "champion", "1")
    for model in (f"runs:/{run.run_id}", f"runs:/{run.run_id}/model", "models:/texts/1"):
        assert run_text(model, "config.yaml", uri) == "name: a\n"
    assert run_text("models:/texts@champion", "config.yaml", uri) == "name: a\n"
    for absent in ("runs:/0", "models:/texts/7", "models:/none@champion"):
        with pytest.raises(UsageError, match="derainctl models"):
            run_text(absent, "config.yaml", uri)
