"""A sweep that is resumed with more samples or more retries: whatever the journal has started is
gone on with, nothing that ended runs again, and what is new is run to its end."""

from typing import Any

import pytest

from derain.config import Config
from derain.tune.running.queue import repeatable
from derain.tune.search.segments import Segment
from tests.tune.driven import LR, Driven, config

RATES = [1e-5, 2e-5, 1e-3, 1e-4, 1e-2, 1e-1, 5e-3, 2e-3, 5e-4, 3e-2]
SEARCHES = ("grid", "random", "tpe", "asha", "pbt")


def planned(search: str, trials: int, **sweep: Any) -> Config:
    how: dict[str, Any] = {"asha": {"first_steps": 4}, "pbt": {"every_steps": 16}, **sweep}
    if search == "grid":
        return config({"train.lr": {"grid": RATES[:trials]}}, search, **how)
    return config(LR, search, samples=trials, **how)


def last(driven: Driven) -> dict[str, tuple[int, str]]:
    """How far each trial came, and how it ended there."""
    return {s.trials[0].name: (s.until, outcome.status) for s, outcome in driven.ended}


@pytest.mark.parametrize("search", ["grid", "random", "tpe", "asha"])
@pytest.mark.parametrize(("few", "many"), [(3, 6), (4, 8), (3, 10)])
@pytest.mark.parametrize("cut", [2, 4, 10**9])
def test_a_sweep_may_be_extended_wherever_it_was_left(
    search: str, few: int, many: int, cut: int
) -> None:
    first = Driven(planned(search, few))
    first.run(limit=cut)
    more = Driven(planned(search, many), events=first.events)
    under_way = list(first.queue.running)
    more.start()
    assert list(more.queue.running)[: len(under_way)] == under_way
    more.run()
    assert not first.values().keys() & more.values().keys()
    reached = {**last(first), **last(more)}
    assert len(reached) == many
    if search == "asha":
        assert max(until for until, _ in reached.values()) == 64
    else:
        assert set(reached.values()) == {(64, "finished")}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("lost", ["first", "best"])
def test_what_failed_and_may_pass_is_run_again_where_more_retries_are_allowed(
    search: str, lost: str
) -> None:
    """A member of a population is gone: later generations were made without it."""
    whole = Driven(planned(search, 8))
    whole.run()
    victim = whole.ended[0][0] if lost == "first" else whole.ended[-1][0]

    def fails(segment: Segment) -> bool:
        return segment.key == victim.key

    first = Driven(planned(search, 8, retries=0))
    first.run(fails=fails, may_pass=True)
    more = planned(search, 8, retries=1)
    resumed = Driven(more, events=first.events)
    resumed.run()
    if search == "pbt":
        assert not resumed.ended
        return
    assert repeatable(more, first.events) == {victim.key}
    assert victim.key in resumed.values()
    assert not repeatable(more, resumed.events)
    again = Driven(planned(search, 8, retries=0), events=resumed.events)
    again.run()
    assert not again.ended


def test_the_best_of_the_added_samples_can_win_a_halving() -> None:
    """The three that were there were too few for a rung: one of them went to the end."""
    first = Driven(planned("asha", 3))
    first.run()
    more = Driven(planned("asha", 6), events=first.events)
    more.run()
    whole = Driven(planned("asha", 6))
    whole.run()
    (winner,) = (name for name, (until, _) in last(whole).items() if until == 64)
    assert winner not in last(first)
    assert last(more)[winner][0] == 64


def test_a_trial_that_was_run_again_counts_as_it_ended_last() -> None:
    first = Driven(planned("random", 3, retries=0))
    first.run(fails=lambda segment: segment.trials[0].name == "s001", may_pass=True)
    again = Driven(planned("random", 3, retries=1), events=first.events)
    again.start()
    left = Driven(planned("random", 3, retries=0), events=again.events)
    left.run()
    assert [s.key for s, _ in left.ended] == ["s001@64"]
