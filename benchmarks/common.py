"""How a benchmark is run and printed: contestants take turns in one process, medians count.

A benchmark module has a function `rows(rounds)` and ends with `main(rows)`. Two busy machines are
never compared: every figure of a row comes from the same process, and the order of the contestants
turns with each round, so that none of them always follows the same one.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

ROUNDS = 5
OURS, LIMIT = "ours", "limit"

Work = Callable[[], float | None]
"""Does the work once. A returned number is its seconds, where setting up should not count."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of ours beside the peers' and the best that the machine could do."""

    name: str
    unit: str
    ours: float
    peers: Mapping[str, float]
    ratio: Mapping[str, float]
    """Ours against each peer: above 1 is better than the peer, whatever the unit."""
    limit: float | None
    share_of_limit: float | None
    """1 is as good as the machine allows."""


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
    """Time everyone in turns. The figure is `amount` a second, or seconds without an amount."""
    works = {OURS: ours, **peers, **({LIMIT: limit} if limit else {})}
    medians = {who: statistics.median(times) for who, times in take_turns(works, rounds).items()}
    figures = {who: amount / s if amount else s for who, s in medians.items()}
    return row(
        name,
        unit,
        figures[OURS],
        {who: figures[who] for who in peers},
        limit=figures.get(LIMIT),
        more_is_better=amount is not None,
    )


def take_turns(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work, `rounds` of them, after one round of warming up that is not counted."""
    times: dict[str, list[float]] = {who: [] for who in works}
    names = list(works)
    for number in range(-1, rounds):
        turn = number % len(names)
        for who in names[turn:] + names[:turn]:
            seconds = _timed(works[who])
            if number >= 0:
                times[who].append(seconds)
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
    """A row of figures that were measured already: megabytes, seconds, pairs a second."""
    against = (lambda other: ours / other) if more_is_better else (lambda other: other / ours)
    return Row(
        name=name,
        unit=unit,
        ours=ours,
        peers=dict(peers),
        ratio={who: against(figure) for who, figure in peers.items()},
        limit=limit,
        share_of_limit=None if limit is None else against(limit),
    )


def installed(module: str) -> bool:
    """Whether a peer can be raced; says so on stderr where it cannot."""
    there = importlib.util.find_spec(module) is not None
    if not there:
        print(
            f"benchmarks: {module} is not installed and left out; `make bench` brings it",
            file=sys.stderr,
        )
    return there


def main(rows: Callable[..., Sequence[Row]], parser: argparse.ArgumentParser | None = None) -> None:
    """Run a benchmark and print its table, or one JSON list of its rows with --json.

    `rows` takes the number of rounds. A benchmark with options of its own brings a parser that has
    them; its `rows` takes what was given as a second argument.
    """
    own, parser = parser is not None, parser or argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="print a JSON list of rows")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="counted rounds")
    given = parser.parse_args()
    found = rows(given.rounds, given) if own else rows(given.rounds)
    print(json.dumps([asdict(r) for r in found], indent=2) if given.json else table(found))


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text, a line for each peer."""
    lines = [["", "unit", "ours", "peer", "peer's", "ratio", "limit", "share"]]
    for item in rows:
        limits = [
            "" if item.limit is None else _figure(item.limit),
            "" if item.share_of_limit is None else f"{item.share_of_limit:.0%}",
        ]
        for who, figure in item.peers.items() or [("", None)]:
            theirs = ["", ""] if figure is None else [_figure(figure), f"{item.ratio[who]:.2f}x"]
            lines.append([item.name, item.unit, _figure(item.ours), who, *theirs, *limits])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _timed(work: Work) -> float:
    began = time.perf_counter()
    own = work()
    return time.perf_counter() - began if own is None else own


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
