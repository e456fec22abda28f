"""Results on the real stdout, whatever it is: a terminal, a pipe, a full disk, closed."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from derain.cli.app import app

NOISY = """
import os
from derain.cli.printed.results import Results

results = Results({as_json})
print("a library prints")
os.write(1, b"a C library prints")
os.system("echo a child prints")
results.show({{"pairs": 3}}, "3 pairs")
"""

SHOWING = """
import sys, types
from derain.cli import app
from derain.cli.printed import versions as output

sys.argv[1:] = ["models"]
sys.modules["derain.tracking.registry"] = types.SimpleNamespace(models=list)  # without MLflow
output.versions = lambda _: {text!a}
app.main()
"""


@pytest.mark.parametrize(
    ("as_json", "expected"), [(False, "3 pairs\n"), (True, '{\n  "pairs": 3\n}\n')]
)
def test_stdout_has_only_the_result_whatever_else_prints(as_json: bool, expected: str) -> None:
    code = NOISY.format(as_json=as_json)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == expected
    assert all(f"a {who} prints" in done.stderr for who in ("library", "C library", "child"))


TABLE = """
from derain.cli.printed.results import Results
from derain.cli.printed.versions import versions

row = {"name": "net-" + 60 * "x", "version": 1, "aliases": ("champion",), "tags": {}}
Results(False).show([row], versions([row]))
"""


def test_a_table_is_one_line_per_row_in_a_pipe() -> None:
    environment = {**os.environ, "COLUMNS": "40"}
    command = [sys.executable, "-c", TABLE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    _, row = done.stdout.splitlines()
    assert row.split() == ["net-" + 60 * "x", "1", "champion"]


def test_a_table_is_fitted_to_a_terminal_without_losing_text() -> None:
    environment = {**os.environ, "COLUMNS": "40", "NO_COLOR": "1", "TERM": "xterm"}
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", TABLE], stdout=theirs, check=True, env=environment)
    os.close(theirs)
    printed = os.read(ours, 10_000).decode()
    os.close(ours)
    assert max(len(line) for line in printed.splitlines() if "x" in line) <= 40
    assert printed.count("x") == 60


def printed(text: str, *, shell: str) -> subprocess.CompletedProcess[bytes]:
    """What a shell command prints in which `$SHOW` shows a result of this text."""
    code = SHOWING.format(text=text)
    command = shell.replace("$SHOW", f'"{sys.executable}" -c "$CODE"')
    environment = {**os.environ, "CODE": code}
    return subprocess.run(["bash", "-c", command], env=environment, capture_output=True)


def test_a_pipe_gets_the_true_bytes_of_a_name() -> None:
    done = printed("out/\udcd3\udcea.png", shell="$SHOW")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"out/\xd3\xea.png\n", b"")


def test_a_reader_that_has_gone_ends_the_command_silently() -> None:
    done = printed("x" * 100_000, shell="$SHOW | true; exit ${PIPESTATUS[0]}")

    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_full_disk_behind_stdout_is_one_message() -> None:
    done = printed("x", shell="$SHOW >/dev/full")

    assert done.returncode == 1
    assert done.stderr.startswith(b"derainctl: standard output: No space left on device. ")
    assert done.stderr.count(b"\n") == 1


def test_a_closed_stdout_is_no_error() -> None:
    done = printed("x", shell="$SHOW >&-")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("asked", ["--version", "--help"])
def test_help_and_version_on_a_full_disk_are_one_message(asked: str) -> None:
    code = f"from derain.cli import app; app.sys.argv[1:] = ['{asked}']; app.main()"
    command = [sys.executable, "-c", code]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)

    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert done.stderr.startswith(b"derainctl: standard output: No space left on device.")


def test_debug_shows_where_a_file_was_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["--debug", "init", "nafnet", str(tmp_path / "file/folder")]
    code = f"from derain.cli import app; app.sys.argv[1:] = {words}; app.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 1
    assert "write_starter" in done.stderr
    assert "standard output" not in done.stderr


def test_a_file_for_a_closed_stdout_is_an_error() -> None:
    showing = (
        "from derain.cli import app; app._occupy_closed_streams(); "
        "from derain.cli.printed.results import Results; Results(False).show_bytes(b'png')"
    )
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" >&-', sys.executable, showing], capture_output=True
    )

    assert done.returncode == 1
    assert b"standard output" in done.stderr


def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    opening = (
        "from derain.cli.app import _occupy_closed_streams as occupy; occupy(); "
        "raise SystemExit(open('/dev/zero').fileno())"
    )
    shell = ["bash", "-c", '"$0" -c "$1" <&- 2>&-', sys.executable, opening]
    done = subprocess.run(shell, capture_output=True)

    assert done.returncode > 2


@pytest.mark.parametrize("words", [["verify", ""], ["predict", "m", "i", "--out="]])
def test_an_empty_argument_is_refused(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 2
    assert "empty" in result.output
