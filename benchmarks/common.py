"""How a benchmark runs and prints: contestants take turns in one process, medians count.

A benchmark module defines `rows(rounds)` and ends with `main(rows)`. All values of a row are
measured in the same process, never on two machines with different load, and the order of the
contestants rotates from round to round, so that none of them always follows the same one.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

APART = Path(__file__).parents[1] / "build/peers"
"""Where `make bench` puts peers that do not fit into this package's environment (apart.txt)."""
ROUNDS = 5
OURS, LIMIT = "ours", "limit"

Work = Callable[[], float | None]
"""Does the work once. It may return its own seconds, to exclude setting up; otherwise the whole
call is timed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One value of ours beside the peers' and the best that this machine could do."""

    name: str
    unit: str
    ours: float
    peers: Mapping[str, float]
    ratio: Mapping[str, float]
    """Ours against each peer: above 1 we are better, whatever the unit."""
    limit: float | None
    share_of_limit: float | None
    """1: as good as the machine allows."""


def compare(
    name: str,
    unit: str,
    ours: Work,
    peers: Mapping[str, Work],
    *,
    amount: float | None = None,
    limit: Work | None = None,
    rounds: int = ROUNDS,
) -> Row:
    """Time all contestants in turns. The row holds `amount` per second, or seconds without one."""
    works = {OURS: ours, **peers, **({LIMIT: limit} if limit else {})}
    medians = {who: statistics.median(times) for who, times in take_turns(works, rounds).items()}
    values = {who: amount / s if amount else s for who, s in medians.items()}
    return row(
        name,
        unit,
        values[OURS],
        {peer: values[peer] for peer in peers},
        limit=values.get(LIMIT),
        more_is_better=amount is not None,
    )


def take_turns(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in `rounds` rounds, after one warm-up round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(-1, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds = _timed(works[name])
            if number >= 0:
                times[name].append(seconds)
    return times


def row(
    name: str,
    unit: str,
    ours: float,
    peers: Mapping[str, float],
    *,
    limit: float | None = None,
    more_is_better: bool = True,
) -> Row:
    """A row of values that have been measured: megabytes, seconds, pairs per second."""

    def against(other: float) -> float:
        return ours / other if more_is_better else other / ours

    return Row(
        name=name,
        unit=unit,
        ours=ours,
        peers=dict(peers),
        ratio={peer: against(value) for peer, value in peers.items()},
        limit=limit,
        share_of_limit=None if limit is None else against(limit),
    )


def find_peers_apart() -> None:
    """Let this process import what is in `APART`, before the same modules of the environment."""
    if str(APART) not in sys.path:
        sys.path.insert(0, str(APART))


def installed(module: str) -> bool:
    """Whether a peer is installed; if not, say on stderr that it is left out."""
    package = module.partition(".")[0]
    found = all(importlib.util.find_spec(name) for name in dict.fromkeys((package, module)))
    if not found:
        print(
            f"benchmarks: {module} is not installed, so it is left out; run `make bench` to "
            "install it",
            file=sys.stderr,
        )
    return found


def main(rows: Callable[..., Sequence[Row]], parser: argparse.ArgumentParser | None = None) -> None:
    """Run a benchmark and print its table, or with --json a JSON list of its rows.

    `rows` gets the number of rounds. A benchmark with options of its own passes a parser that
    defines them; its `rows` gets the parsed options as a second argument.
    """
    own, parser = parser is not None, parser or argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="print a JSON list of rows")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"counted rounds (default: {ROUNDS})"
    )
    options = parser.parse_args()
    found = rows(options.rounds, options) if own else rows(options.rounds)
    print(json.dumps([asdict(r) for r in found], indent=2) if options.json else table(found))


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text, one line per peer."""
    lines = [["", "unit", "ours", "peer", "peer's", "ratio", "limit", "share"]]
    for item in rows:
        limits = [
            "" if item.limit is None else _number(item.limit),
            "" if item.share_of_limit is None else f"{item.share_of_limit:.0%}",
        ]
        for peer, value in item.peers.items() or [("", None)]:
            cells = ["", ""] if value is None else [_number(value), f"{item.ratio[peer]:.2f}x"]
            lines.append([item.name, item.unit, _number(item.ours), peer, *cells, *limits])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _timed(work: Work) -> float:
    start = time.perf_counter()
    own = work()
    return time.perf_counter() - start if own is None else own


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
