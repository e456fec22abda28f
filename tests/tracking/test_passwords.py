"""The password of the store's address is in no message: MLflow quotes the address in full."""

import logging
from pathlib import Path

import pytest

from derain.errors import StorageError
from derain.tracking.address import hidden, without_password
from derain.tracking.outbox import Outbox
from derain.tracking.runs import RunLog, end_killed
from derain.tracking.sender import Sender
from derain.tracking.ui import _without_account
from tests.processes import free_port

PASSWORD = "27182818284590"


@pytest.fixture
def nobody_there() -> str:
    return f"http://ann:{PASSWORD}@127.0.0.1:{free_port()}"


def test_a_text_that_quotes_the_address() -> None:
    uri = f"postgresql://ann:{PASSWORD}@db/mlflow"
    assert without_password(uri) == "postgresql://ann:***@db/mlflow"
    assert (
        hidden(f"cannot reach {uri}?a=1", uri) == "cannot reach postgresql://ann:***@db/mlflow?a=1"
    )
    assert hidden("a text", "http://host:5000") == "a text"


def test_a_server_that_does_not_answer(nobody_there: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as told:
        Sender(nobody_there, "a" * 32)([{"tag": ["name", "value"]}])
    assert "http://ann:***@127.0.0.1" in str(told.value)
    assert PASSWORD not in str(told.value)
    outbox = Outbox(tmp_path, "a" * 32, Sender(nobody_there, "a" * 32))
    outbox.put({"tag": ["name", "value"]})
    assert outbox.close(3.0) == 1
    assert PASSWORD not in str(outbox.last_error)


def test_a_run_that_cannot_be_created(nobody_there: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as told, RunLog("run", uri=nobody_there, outbox=tmp_path):
        pass
    assert "http://ann:***@127.0.0.1" in str(told.value)
    assert PASSWORD not in str(told.value)


def test_a_killed_run_whose_server_does_not_answer(
    nobody_there: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        end_killed("a" * 32, nobody_there)
    assert "keeps its status" in caplog.text
    assert PASSWORD not in caplog.text


def test_the_page_of_a_server_is_shown_without_account() -> None:
    assert _without_account(f"https://ann:{PASSWORD}@host:5000/sub") == "https://host:5000/sub"
    assert _without_account("http://host:5000") == "http://host:5000"
