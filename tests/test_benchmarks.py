"""The harness of the benchmarks: turns, medians, and ratios that mean the same for every unit."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import compare, row, table, take_turns

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(
    path
    for path in (ROOT / "benchmarks").glob("*.py")
    if path.stem != "common" and (path.stem == "__main__" or not path.stem.startswith("_"))
)


def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    seen: list[str] = []
    works = {who: lambda who=who: seen.append(who) or float(len(seen)) for who in "abc"}
    times = take_turns(works, 3)
    rounds = ["".join(seen[at : at + 3]) for at in range(0, len(seen), 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 4
    assert {each[0] for each in rounds[1:]} == {"a", "b", "c"}
    assert min(min(each) for each in times.values()) > 3
    assert {len(each) for each in times.values()} == {3}


def test_a_rate_is_the_median_and_more_is_better() -> None:
    times = iter([9.0, 1.0, 100.0, 2.0])
    done = compare(
        "read", "pairs/s", lambda: next(times), {"png": lambda: 4.0},
        amount=8, limit=lambda: 1.0, rounds=3,
    )  # fmt: skip
    assert (done.ours, done.peers, done.ratio) == (4.0, {"png": 2.0}, {"png": 2.0})
    assert (done.limit, done.share_of_limit) == (8.0, 0.5)


def test_seconds_are_better_when_fewer() -> None:
    done = compare("start", "s", lambda: 2.0, {"plain": lambda: 3.0}, limit=lambda: 1.0, rounds=1)
    assert (done.ours, done.ratio, done.share_of_limit) == (2.0, {"plain": 1.5}, 0.5)


def test_the_table_has_a_line_for_each_peer() -> None:
    text = table([row("read", "pairs/s", 1234.5, {"png": 10.0, "mds": 20.0}, limit=2469.0)])
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["read", "pairs/s", "1,234", "png", "10", "123.45x", "2,469", "50%"],
        ["read", "pairs/s", "1,234", "mds", "20", "61.73x", "2,469", "50%"],
    ]


def test_an_unknown_benchmark_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--json", "nothing"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no such benchmark: nothing" in done.stderr


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_says_how_it_is_called(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = "benchmarks" if path.stem == "__main__" else f"benchmarks.{path.stem}"
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(module, run_name="__main__")
    assert "--json" in capsys.readouterr().out
