"""clusters/tracking without servers, which tests/soak/soak_team_store.py has."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from mlflow.cli import cli

from tests.clusters.checks import CLUSTERS
from tests.commands import FENCED
from tests.repository import ROOT

FOLDER = CLUSTERS / "tracking"
PAGE = ROOT / "docs" / "guides" / "team_store.md"
PASSWORDS = {
    "PGPASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
}


def settings() -> dict[str, str]:
    text = (FOLDER / "settings.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def with_settings(folder: Path, mode: int, **values: str) -> Path:
    path = folder / "settings"
    given = {**settings(), **dict.fromkeys(PASSWORDS, "secret"), **values}
    path.write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    path.chmod(mode)
    return path


def start(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([FOLDER / "start.sh", *words], capture_output=True, text=True)


def test_the_page_has_the_files_as_they_are() -> None:
    shown = dict(FENCED.findall(PAGE.read_text("utf-8")))
    assert shown["sh"] == (FOLDER / "start.sh").read_text(encoding="utf-8")
    assert shown["ini"] == (FOLDER / "settings.example").read_text(encoding="utf-8")


def test_mlflow_has_these_options() -> None:
    text = (FOLDER / "start.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^exec mlflow server (.*)$", text, re.MULTILINE)
    given = {word for word in shlex.split(line) if word.startswith("--")}
    known = {option for parameter in cli.commands["server"].params for option in parameter.opts}
    assert given <= known
    assert {"--app-name", "--allowed-hosts", "--artifacts-destination", "--host"} <= given
    assert not any(name in line for name in PASSWORDS)


def test_the_settings_are_those_that_the_script_reads() -> None:
    script = (FOLDER / "start.sh").read_text(encoding="utf-8")
    by_libraries = {name for name in settings() if name.startswith(("AWS_", "MLFLOW_AUTH_"))}
    assert set(settings()) - by_libraries <= set(re.findall(r"\$\{?([A-Z_]+)", script))
    assert {name for name, value in settings().items() if not value} == PASSWORDS
    assert settings()["HOST"] == "127.0.0.1"


def test_a_command_gets_the_settings_and_no_password_in_an_address(tmp_path: Path) -> None:
    path = with_settings(tmp_path, 0o600)
    done = start(path, "sh", "-c", 'echo "$MLFLOW_BACKEND_STORE_URI $PGPASSWORD"')
    assert done.stdout == "postgresql+psycopg2://mlflow@127.0.0.1:5432/mlflow secret\n"
    accounts = path.with_name("settings.accounts.ini").read_text()
    assert "secret" not in accounts
    assert "database_uri = postgresql+psycopg2://mlflow@127.0.0.1:5432/mlflow\n" in accounts


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_settings_that_others_may_read_are_refused(tmp_path: Path, mode: int) -> None:
    done = start(with_settings(tmp_path, mode), "true")
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


@pytest.mark.parametrize("name", sorted(PASSWORDS))
def test_an_empty_password_is_refused(tmp_path: Path, name: str) -> None:
    done = start(with_settings(tmp_path, 0o600, **{name: ""}), "true")
    assert done.returncode == 2
    assert f"{name}: is empty in" in done.stderr
