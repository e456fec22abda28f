"""The harness of the benchmarks: rotation, medians, and ratios with one meaning for every unit."""

import runpy
import subprocess
import sys

import pytest

from benchmarks import FOLDER, NAMES
from benchmarks.common import compare, row, table, take_turns


def test_contestants_rotate_and_the_warm_up_is_not_counted() -> None:
    seen: list[str] = []
    works = {who: lambda who=who: seen.append(who) or float(len(seen)) for who in "abc"}
    times = take_turns(works, 3)
    rounds = ["".join(seen[at : at + 3]) for at in range(0, len(seen), 3)]
    assert [sorted(order) for order in rounds] == [["a", "b", "c"]] * 4
    assert {order[0] for order in rounds[1:]} == {"a", "b", "c"}
    assert min(map(min, times.values())) > 3
    assert set(map(len, times.values())) == {3}


def test_a_rate_is_the_median_and_higher_is_better() -> None:
    times = iter([9.0, 1.0, 100.0, 2.0])
    done = compare(
        "read", "pairs/s", lambda: next(times), {"png": lambda: 4.0},
        amount=8, limit=lambda: 1.0, rounds=3,
    )  # fmt: skip
    assert (done.ours, done.peers, done.ratio) == (4.0, {"png": 2.0}, {"png": 2.0})
    assert (done.limit, done.share_of_limit) == (8.0, 0.5)


def test_fewer_seconds_are_better() -> None:
    done = compare("start", "s", lambda: 2.0, {"plain": lambda: 3.0}, limit=lambda: 1.0, rounds=1)
    assert (done.ours, done.ratio, done.share_of_limit) == (2.0, {"plain": 1.5}, 0.5)


def test_the_table_has_a_line_per_peer() -> None:
    text = table([row("read", "pairs/s", 1234.5, {"png": 10.0, "mds": 20.0}, limit=2469.0)])
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["read", "pairs/s", "1,234", "png", "10", "123.45x", "2,469", "50%"],
        ["read", "pairs/s", "1,234", "mds", "20", "61.73x", "2,469", "50%"],
    ]


def test_an_unknown_benchmark_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--json", "nothing"],
        cwd=FOLDER.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no such benchmark: nothing" in done.stderr


@pytest.mark.parametrize("module", ["benchmarks", *(f"benchmarks.{name}" for name in NAMES)])
def test_every_benchmark_has_help(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(module, run_name="__main__")
    assert "--json" in capsys.readouterr().out
