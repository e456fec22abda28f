"""What commands print: only results on stdout, aligned tables, one JSON document."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from derain.cli import output
from derain.cli.app import app

NOISY = """
import os
from derain.cli.output import Results

results = Results({as_json})
print("a library prints")
os.write(1, b"a C library prints")
os.system("echo a child prints")
results.show({{"pairs": 3}}, "3 pairs")
"""

SHOWING = """
import sys, types
from derain.cli import app, output

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


def test_columns_are_aligned_and_lines_have_no_trailing_spaces() -> None:
    rows = [
        {"name": "a", "version": 10, "aliases": ("champion",), "tags": {"psnr_y": "31.234567"}},
        {"name": "longer", "version": 2, "aliases": (), "tags": {"profile": "demo"}},
    ]
    assert output.plain(output.versions(rows)).splitlines() == [
        "model   version  aliases   PSNR    trained with",
        "a       10       champion  31.234",
        "longer  2                          demo",
    ]


def test_counts_are_under_their_prompts() -> None:
    found = {"prompts": ["light rain", "heavy rain"], "counts": {"light": [3, 1], "heavy": [0, 4]}}
    assert output.plain(output.matches(found, "density")).splitlines() == [
        "density  light rain  heavy rain",
        "light    3           1",
        "heavy    0           4",
    ]


TABLE = """
from derain.cli.output import Results, versions

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


def test_a_plan_lists_obstacles_and_finished_trials() -> None:
    trials = [("low", {"lr": 1}, "finished"), ("high", None, "planned")]
    planned = {
        "name": "search",
        "profile": "demo",
        "estimate": {
            "seconds": 90.0,
            "steps": 4000,
            "gpu_hours": 0.5,
            "disk_bytes": 2**30,
            "cost": 1.5,
            "memory_bytes": 2**31,
            "cache_bytes": 2**29,
            "free_bytes": 40 * 2**30,
        },
        "trials": [dict(zip(("name", "params", "state"), trial, strict=True)) for trial in trials],
        "warnings": ["no data"],
    }
    assert output.plan_summary(planned, "config").splitlines() == [
        "search, profile demo: 2 trials, 4,000 steps, about 2 min, 0.5 GPU-hours, cost 1.50",
        "2.0 GiB of memory in each process, 1.0 GiB of checkpoints, 512.0 MiB of pixel caches to "
        "build, 40.0 GiB free on the disk",
        "Would stop: no data",
        "  low: {'lr': 1} (finished)",
        "  high: depends on the results of earlier trials",
        "",
        "config",
    ]


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
        "from derain.cli import app, output; app._occupy_closed_streams(); "
        "output.Results(False).show_bytes(b'png')"
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


def test_what_an_evaluation_left_out_is_below_its_table() -> None:
    means = {"metrics": {"psnr_y": 30.0, "ssim_y": 0.9}, "input": {"psnr_y": 20.0, "ssim_y": 0.8}}
    item = {"name": "a/test", "pictures": 3, "by_protocol": {"rain13k": means}}
    left_out = [
        {"dataset": "a/test", "key": "strip", "reason": "48x10 px"},
        {"dataset": "b/test", "key": None, "reason": "damaged"},
    ]
    cost = {"images": 3, "seconds": 2.0, "images_per_s": 1.5, "workers": 1}
    result = {"datasets": [item], "cost": {**cost, "peak_memory_bytes": 2**30}}
    lines = output.plain(output.scores({**result, "left_out": left_out})).splitlines()
    assert lines[1].split() == ["a/test", "3", "rain13k", "30.000", "0.9000", "20.000", "0.8000"]
    assert lines[2:] == [
        "left out, and in no mean: a/test, strip: 48x10 px",
        "left out, and in no mean: b/test: damaged",
        "3 images in 2.0 s, 1.5 images/s; 1 process, 1.00 GiB in the largest",
    ]
    assert "left out" not in output.plain(output.scores({**result, "left_out": []}))
    done_before = {**result, "left_out": [], "cost": {**result["cost"], "images": 0}}
    assert output.plain(output.scores(done_before)).endswith("all images were scored before")


def test_a_run_is_summarised_in_lines_that_fit_a_terminal() -> None:
    sides = {"metrics": {"psnr_y": 30.0, "ssim_y": 0.9}, "input": {"psnr_y": 20.0, "ssim_y": 0.8}}
    registered = {"name": "net", "version": 1, "alias": "champion"}
    test = {**sides, "chosen_on_test": False}
    run = {"run": "net", "test": test, "registered": registered, "checkpoint": "runs/net/step-4"}
    assert output.run_summary({**sides, **run}).splitlines() == [
        "net: validation PSNR-Y 30.000 dB (rainy input 20.000 dB), SSIM-Y 0.9000",
        "  test PSNR-Y 30.000 dB (rainy input 20.000 dB), SSIM-Y 0.9000",
        "  registered as net version 1 (champion)",
        "  checkpoint runs/net/step-4",
    ]


def test_a_reports_table_has_the_columns_that_fit_a_terminal_and_names_the_others() -> None:
    report = "# Sweep\n\n| trial | gain over input (dB) | rank |\n| --- | ---: | ---: |\n"
    report += "| high | +1.5 [-0.1, +0.2] | 1 |\n\n- A note."
    assert output.plain(output.aligned(report), 24).splitlines() == [
        "# Sweep",
        "",
        "       gain over input",
        "trial  (dB)",
        "high   +1.5 [-0.1, +0.2]",
        "(in the report: rank)",
        "",
        "- A note.",
    ]
    wide = output.plain(output.aligned(report), 80).splitlines()
    assert wide[2:4] == ["trial  gain over input (dB)  rank", "high   +1.5 [-0.1, +0.2]     1"]
