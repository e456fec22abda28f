"""A sweep resumed with more samples or retries: what the journal has started continues, nothing
that ended runs again, and everything new runs to its last step."""

from typing import Any

import pytest

from derain.config import Config
from derain.tune.running.queue import retryable
from derain.tune.search.base import Segment
from tests.tune.simulated import LR, SimulatedSweep, config

RATES = [1e-5, 2e-5, 1e-3, 1e-4, 1e-2, 1e-1, 5e-3, 2e-3, 5e-4, 3e-2]
SEARCHES = ("grid", "random", "tpe", "asha", "pbt")


def planned(search: str, trials: int, **sweep: Any) -> Config:
    how: dict[str, Any] = {"asha": {"first_steps": 4}, "pbt": {"every_steps": 16}, **sweep}
    if search == "grid":
        return config({"train.lr": {"grid": RATES[:trials]}}, search, **how)
    return config(LR, search, samples=trials, **how)


def last(simulated: SimulatedSweep) -> dict[str, tuple[int, str]]:
    """The last step and status of each trial."""
    return {s.trials[0].name: (s.until, outcome.status) for s, outcome in simulated.ended}


@pytest.mark.parametrize("search", ["grid", "random", "tpe", "asha"])
@pytest.mark.parametrize(("few", "many"), [(3, 6), (4, 8), (3, 10)])
@pytest.mark.parametrize("cut", [2, 4, 10**9])
def test_a_sweep_can_be_extended_wherever_it_was_interrupted(
    search: str, few: int, many: int, cut: int
) -> None:
    first = SimulatedSweep(planned(search, few))
    first.run(limit=cut)
    more = SimulatedSweep(planned(search, many), events=first.events)
    running = list(first.queue.running)
    more.start()
    assert list(more.queue.running)[: len(running)] == running
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
def test_what_may_pass_is_run_again_if_retries_are_added(search: str, lost: str) -> None:
    """Except in a population: its later generations were created without the failed member."""
    whole = SimulatedSweep(planned(search, 8))
    whole.run()
    victim = whole.ended[0][0] if lost == "first" else whole.ended[-1][0]

    def fails(segment: Segment) -> bool:
        return segment.key == victim.key

    first = SimulatedSweep(planned(search, 8, retries=0))
    first.run(fails=fails, may_pass=True)
    more = planned(search, 8, retries=1)
    resumed = SimulatedSweep(more, events=first.events)
    resumed.run()
    if search == "pbt":
        assert not resumed.ended
        return
    assert retryable(more, first.events) == {victim.key}
    assert victim.key in resumed.values()
    assert not retryable(more, resumed.events)
    again = SimulatedSweep(planned(search, 8, retries=0), events=resumed.events)
    again.run()
    assert not again.ended


def test_the_best_of_the_added_samples_can_win_asha() -> None:
    """The first three were too few to promote from a rung; one of them ran to the last step."""
    first = SimulatedSweep(planned("asha", 3))
    first.run()
    more = SimulatedSweep(planned("asha", 6), events=first.events)
    more.run()
    whole = SimulatedSweep(planned("asha", 6))
    whole.run()
    (winner,) = (name for name, (until, _) in last(whole).items() if until == 64)
    assert winner not in last(first)
    assert last(more)[winner][0] == 64


def test_a_retried_trial_counts_by_its_last_outcome() -> None:
    first = SimulatedSweep(planned("random", 3, retries=0))
    first.run(fails=lambda segment: segment.trials[0].name == "s001", may_pass=True)
    again = SimulatedSweep(planned("random", 3, retries=1), events=first.events)
    again.start()
    left = SimulatedSweep(planned("random", 3, retries=0), events=again.events)
    left.run()
    assert [s.key for s, _ in left.ended] == ["s001@64"]
