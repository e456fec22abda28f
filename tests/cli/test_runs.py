"""`derainctl runs` and `derainctl cache` on the command line."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Derainctl
from tests.tune.runs import made


def test_runs_are_listed_shown_compared_and_cleaned(derainctl: Derainctl, tmp_path: Path) -> None:
    assert "no run in runs/" in derainctl("runs").stdout
    one, two = (
        made.run(tmp_path / "runs", "one", psnr={4: 29.0}),
        made.run(tmp_path / "runs", "two"),
    )
    made.finish(one)
    made.finish(two)
    done = derainctl("runs")
    assert done.returncode == 0
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [
        ["two", "finished", "4/4"],
        ["one", "finished", "4/4"],
    ]
    listed = json.loads(derainctl("runs", "--dir", "runs", "--json").stdout)["runs"]
    assert {run["name"]: run["best"]["value"] for run in listed} == {"one": 30.0, "two": 30.0}
    shown = derainctl("runs", "show", "one").stdout
    assert "Next: derainctl evaluate runs/one PREPARED" in shown
    assert "chosen, last" in shown
    assert max(map(len, shown.splitlines())) <= 200
    compared = derainctl("runs", "compare", "one", "two").stdout
    assert "config: no difference" in compared
    refused = derainctl("runs", "clean")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    kept = json.loads(derainctl("runs", "clean", "--dry-run", "--json").stdout)
    assert (len(kept["items"]), kept["removed"], kept["freed_bytes"]) == (6, [], 0)
    done = derainctl("runs", "clean", "--yes")
    assert (done.returncode, done.stdout.startswith("removed 6 items, ")) == (0, True)
    assert derainctl("runs", "clean", "--yes").stdout == "nothing can go\n"


def test_options_of_the_list_hold_for_its_commands(derainctl: Derainctl, tmp_path: Path) -> None:
    made.run(tmp_path / "mine", "one")
    done = derainctl("runs", "--dir", "mine", "--json", "show", "one")
    assert json.loads(done.stdout)["state"] == "stopped"
    missing = derainctl("runs", "show", "one")
    assert (missing.returncode, "--dir" in missing.stderr) == (2, True)


def test_caches_are_listed_and_cleaned(derainctl: Derainctl, tmp_path: Path) -> None:
    caches = tmp_path / "caches"
    caches.mkdir()
    (caches / "abc.rgb").write_bytes(b"x" * 2048)
    listed = derainctl("cache", "--dir", caches)
    assert "1 cache, 2.0 KiB" in listed.stdout
    assert derainctl("cache", "clean", "--dir", caches, "--yes").stdout == "nothing can go\n"
    done = derainctl("cache", "clean", "--dir", caches, "--all", "--yes")
    assert done.stdout == "removed 1 item, 2.0 KiB\n"
    assert not (caches / "abc.rgb").exists()


def test_a_command_to_copy_is_one_line_on_a_narrow_terminal(tmp_path: Path) -> None:
    made.finish(made.run(tmp_path / "runs", "one"))
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "40", "NO_COLOR": "1", "TERM": "xterm"}
    show = [sys.executable, "-m", "derain.cli", "runs", "show", "one"]
    subprocess.run(show, stdout=theirs, check=True, cwd=tmp_path, env=environment)
    os.close(theirs)
    printed = os.read(ours, 10_000).decode()
    os.close(ours)
    (step,) = [line for line in printed.splitlines() if "train.steps=" in line]
    assert "derainctl train runs/one/config.yaml --resume one" in step
