"""The next segments of a search are a function of its history, in whatever order trials end and
however often it is interrupted."""

import math
from typing import Any

import numpy as np
import pytest

from derain.config import Config
from derain.config.sweep import Dimension
from derain.tune.running.queue import Queue
from derain.tune.search.algorithms import algorithm_of
from derain.tune.search.base import Outcome
from derain.tune.search.pbt import perturb
from derain.tune.search.tpe import random_points
from tests.tune.simulated import LR, SimulatedSweep, config, outcome, psnr


def test_grid_and_random_run_every_trial_to_its_end() -> None:
    simulated = SimulatedSweep(config(LR, "random", samples=5))
    simulated.run()
    assert [s.until for s, _ in simulated.ended] == [64] * 5
    assert len(simulated.values()) == 5


def test_a_retry_runs_next() -> None:
    queue = SimulatedSweep(config(LR, "random", samples=3)).queue
    first, second = queue.take(), queue.take()
    assert first
    assert second
    queue.retry(first.key)
    assert queue.take() == first
    third = queue.take()
    assert third not in (None, first, second)
    assert queue.take() is None
    assert not queue.finished


def test_tpe_finds_better_rates_than_random_search() -> None:
    best = {}
    for search in ("random", "tpe"):
        simulated = SimulatedSweep(config(LR, search, samples=30))
        simulated.run()
        rates = [s.trials[0].config.train.lr for s, _ in simulated.ended[15:]]
        best[search] = float(np.mean([abs(math.log10(rate) + 3) for rate in rates]))
    assert best["tpe"] < 0.6 * best["random"]


@pytest.mark.parametrize("search", ["tpe", "pbt"])
def test_neither_the_order_of_results_nor_an_interruption_changes_a_search(search: str) -> None:
    planned = config(LR, search, samples=8 if search == "pbt" else 16)
    first = SimulatedSweep(planned)
    first.run()
    late = SimulatedSweep(planned, shuffle_seed=3)
    late.run()
    assert late.values() == first.values()
    broken = SimulatedSweep(planned)
    broken.run(limit=11)
    resumed = SimulatedSweep(planned, events=broken.events)
    resumed.run()
    assert {**broken.values(), **resumed.values()} == first.values()


def test_tpe_keeps_the_values_in_the_journal() -> None:
    known = {"s000": {"train.lr": 0.012345}}
    search = algorithm_of(config(LR, "tpe", samples=4), ahead=2, known=known)
    assert next(iter(search.ready.values())).trials[0].config.train.lr == 0.012345
    assert len(search.ready) == 2


@pytest.mark.parametrize("ahead", [2, 6])
def test_tpe_chooses_from_results_after_its_random_points(ahead: int) -> None:
    """Other results change the points from there on, and none before."""
    planned = config(LR, "tpe", samples=16)
    rates = []
    for best in (1e-5, 1e-1):
        search = algorithm_of(planned, ahead=ahead, known={})
        found: list[float] = []
        while search.ready:
            segment = search.start(next(iter(search.ready)))
            rate = segment.trials[0].config.train.lr
            found.append(rate)
            psnr = -abs(math.log10(rate / best))
            result = Outcome(segment.trials[0].name, "finished", 64, {"psnr_y": psnr})
            search.tell(segment, [result])
        rates.append(found)
    assert planned.sweep
    same = [first == second for first, second in zip(*rates, strict=True)]
    assert same.index(False) == random_points(planned.sweep, ahead)


def test_tpe_handles_conditions_lists_failures_and_repeats() -> None:
    space = {
        "loss.pixel": {"choice": ["mse", "power"]},
        "loss.schedule": {
            "choice": {"anneal": {"kind": "power_anneal"}, "mix": {"kind": "convex_mix"}},
            "when": {"loss.pixel": "power"},
        },
        "train.batch_size": {"integers": [2, 16]},
        **LR,
    }
    simulated = SimulatedSweep(config(space, "tpe", samples=14, repeats=2))
    simulated.run(fails=lambda segment: segment.trials[0].name == "s001,seed=6")
    assert len(simulated.ended) == 28
    for segment, _ in simulated.ended:
        loss = segment.trials[0].config.loss
        assert (loss.pixel == "power") == (loss.schedule is not None)
    by_point = {s.trials[0].point: s.trials[0].params for s, _ in simulated.ended}
    assert len(by_point) == 14


def test_tpe_uses_costs_and_limits() -> None:
    """The cost falls with the rate, so as an objective it draws the search to larger rates."""
    medians = {}
    for costs in ((), ("parameters",)):
        simulated = SimulatedSweep(config(LR, "tpe", samples=40, costs=costs))
        simulated.run()
        rates = [s.trials[0].config.train.lr for s, _ in simulated.ended[15:]]
        medians[costs] = float(np.median(np.log10(rates)))
    assert medians[("parameters",)] > medians[()]
    limited = SimulatedSweep(
        config(LR, "tpe", samples=40, limits={"parameters": 100})
    )  # rate above 1e-2
    limited.run()
    rates = [s.trials[0].config.train.lr for s, _ in limited.ended[20:]]
    assert np.median(rates) > 1e-2 > 5 * 10 ** medians[()]


def asha() -> Config:
    return config(LR, "asha", samples=16, asha={"first_steps": 4, "keep_one_in": 4})


def test_asha_finds_the_best_trial_in_a_fraction_of_the_steps() -> None:
    simulated = SimulatedSweep(asha())
    simulated.run()
    reached: dict[str, int] = {}
    for segment, _ in simulated.ended:
        reached[segment.trials[0].name] = segment.until
    first_rung = [(psnr(s), s.trials[0].name) for s, _ in simulated.ended if s.until == 4]
    assert len(first_rung) == 16
    assert reached[max(first_rung)[1]] == 64
    assert sum(reached.values()) <= 0.4 * 16 * 64


def test_asha_resumes_with_the_rungs_of_the_journal() -> None:
    whole = SimulatedSweep(asha(), at_once=1)
    whole.run()
    for cut in (1, 7, 15):
        broken = SimulatedSweep(asha(), at_once=1)
        broken.run(limit=cut)
        resumed = SimulatedSweep(asha(), at_once=1, events=broken.events)
        resumed.run()
        both = [*broken.ended, *resumed.ended]
        assert [s.key for s, _ in both] == [s.key for s, _ in whole.ended]


def test_asha_always_trains_one_trial_to_its_last_step() -> None:
    for samples in (1, 2, 5, 8):
        simulated = SimulatedSweep(config(LR, "asha", samples=samples, asha={"first_steps": 4}))
        simulated.run()
        assert max(segment.until for segment, _ in simulated.ended) == 64
    lost = SimulatedSweep(asha())
    lost.run(fails=lambda _: True)
    assert len(lost.ended) == 16


@pytest.mark.parametrize("samples", [4, 16])
@pytest.mark.parametrize("rung", [16, 64])
def test_if_promoted_trials_fail_asha_promotes_the_next_best(samples: int, rung: int) -> None:
    """The two best trials fail at a rung; the third one then wins."""
    planned = config(LR, "asha", samples=samples, asha={"first_steps": 4})
    whole = SimulatedSweep(planned)
    whole.run()
    first = {psnr(s): s.trials[0].name for s, _ in whole.ended if s.until == 4}
    order = [name for _, name in sorted(first.items(), reverse=True)]
    simulated = SimulatedSweep(planned)
    simulated.run(fails=lambda s: s.until == rung and s.trials[0].name in order[:2])
    (winner,) = (s for s, outcome in simulated.ended if outcome.status == "finished")
    assert winner.trials[0].name == order[2]


def test_a_trial_that_fails_at_a_rung_is_not_promoted() -> None:
    simulated = SimulatedSweep(asha())
    simulated.run(fails=lambda segment: segment.trials[0].name == "s003")
    assert [s.until for s, _ in simulated.ended if s.trials[0].name == "s003"] == [4]


def population(**pbt: Any) -> Config:
    return config(LR, "pbt", samples=8, pbt={"every_steps": 16, **pbt})


def test_the_worst_of_a_population_continue_from_the_best_with_other_values() -> None:
    simulated = SimulatedSweep(population())
    simulated.run()
    assert [s.until for s, _ in simulated.ended] == [16] * 8 + [32] * 8 + [48] * 8 + [64] * 8
    first = {s.trials[0].name: (psnr(s), s) for s, _ in simulated.ended[:8]}
    order = sorted(first, key=lambda name: first[name][0])
    for segment, _ in simulated.ended[8:16]:
        name = segment.trials[0].name
        rate = segment.trials[0].config.train.lr
        if name in order[:2]:
            assert segment.copies
            assert segment.copies[1] == 16
            assert segment.copies[0] in order[-2:]
            parent = first[segment.copies[0]][1].trials[0].config.train.lr
            assert rate == pytest.approx(parent * 0.8) or rate == pytest.approx(parent * 1.25)
        else:
            assert segment.copies is None
            assert rate == first[name][1].trials[0].config.train.lr


def test_the_checkpoint_to_copy_is_kept() -> None:
    """The parent may be an interval ahead by the time it is copied, and keeps two checkpoints."""
    segments = algorithm_of(population(), ahead=2, known={}).ready.values()
    assert segments
    for segment in segments:
        train = segment.trials[0].config.train
        assert train.checkpoint_every_steps == 16
        assert train.keep_checkpoints == 2


def test_a_population_continues_without_a_failed_member() -> None:
    simulated = SimulatedSweep(population())
    simulated.run(fails=lambda segment: segment.trials[0].name == "s002" and segment.until == 32)
    assert [s.until for s, _ in simulated.ended] == [16] * 8 + [32] * 8 + [48] * 7 + [64] * 7
    lost = SimulatedSweep(population())
    lost.run(fails=lambda _: True)
    assert len(lost.ended) == 8


@pytest.mark.parametrize(
    ("dimension", "value", "expected"),
    [
        ({"uniform": [0.0, 1.0]}, 0.5, {0.4, 0.625}),
        ({"uniform": [0.45, 0.6]}, 0.5, {0.45, 0.6}),
        ({"integers": [1, 9]}, 4, {3, 5}),
        ({"integers": [1, 9]}, 1, {1, 2}),
        ({"choice": ["a", "b", "c"]}, "b", {"a", "c"}),
        ({"choice": ["a", "b", "c"]}, "c", {"b", "c"}),
    ],
)
def test_a_perturbed_value_is_near_the_old_one(dimension: dict, value: Any, expected: set) -> None:
    rng = np.random.default_rng(0)
    found = {perturb(Dimension(**dimension), value, rng)[1] for _ in range(40)}
    assert found == expected


def test_a_cohort_has_trials_with_equal_keys_and_a_retry_is_alone() -> None:
    space = {
        "train.lr": {"grid": [1e-4, 1e-3, 1e-2]},
        "model.encoder_seed": {"grid": [0, 1]},
    }
    queue = Queue(algorithm_of(config(space, "grid"), ahead=1, known={}))
    first, second = queue.take_cohort(2), queue.take_cohort(4)
    assert [s.key for s in first] == ["0.0001,0@64", "0.001,0@64"]
    assert [s.key for s in second] == ["0.0001,1@64", "0.001,1@64", "0.01,1@64"]
    for segment in first:
        queue.retry(segment.key)
    again = [queue.take_cohort(4) for _ in range(3)]
    assert [[s.key for s in cohort] for cohort in again] == [
        ["0.0001,0@64"],
        ["0.001,0@64"],
        ["0.01,0@64"],
    ]
    assert queue.take_cohort(4) == []


def test_the_trials_of_a_cohort_are_at_one_rung() -> None:
    space = {"train.lr": {"grid": [1e-5, 1e-4, 1e-3, 1e-2]}}
    rungs = {"first_steps": 8, "keep_one_in": 3}
    queue = Queue(algorithm_of(config(space, "asha", asha=rungs), ahead=1, known={}))
    cohort = queue.take_cohort(3)
    assert len(cohort) == 3
    for segment in cohort:
        queue.done(segment.key, [outcome(segment, 64)])
    promoted = queue.take_cohort(3)
    assert [(s.trials[0].config.train.lr, s.until) for s in promoted] == [(1e-3, 24)]
    assert [s.until for s in queue.take_cohort(3)] == [8]
