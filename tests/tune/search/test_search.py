"""What a sweep does next: a function of its history, whoever ends first and however often it
was interrupted."""

import math
from typing import Any

import numpy as np
import pytest

from derain.config import Config
from derain.config.sweep import Dimension
from derain.tune.running.queue import Queue
from derain.tune.search.algorithms import algorithm_of
from derain.tune.search.pbt import varied
from derain.tune.search.segments import Outcome
from derain.tune.search.tpe import drawn_first
from tests.tune.driven import LR, Driven, config, figure, outcome


def test_grid_and_random_run_every_trial_to_its_end() -> None:
    driven = Driven(config(LR, "random", samples=5))
    driven.run()
    assert [s.until for s, _ in driven.ended] == [64] * 5
    assert len(driven.values()) == 5


def test_what_is_given_back_comes_next() -> None:
    queue = Driven(config(LR, "random", samples=3)).queue
    first, second = queue.take(), queue.take()
    assert first
    assert second
    queue.give_back(first.key)
    assert queue.take() == first
    third = queue.take()
    assert third not in (None, first, second)
    assert queue.take() is None
    assert not queue.finished


def test_tpe_finds_a_better_rate_than_chance() -> None:
    best = {}
    for search in ("random", "tpe"):
        driven = Driven(config(LR, search, samples=30))
        driven.run()
        rates = [s.trials[0].config.train.lr for s, _ in driven.ended[15:]]
        best[search] = float(np.mean([abs(math.log10(rate) + 3) for rate in rates]))
    assert best["tpe"] < 0.6 * best["random"]


@pytest.mark.parametrize("search", ["tpe", "pbt"])
def test_neither_the_order_of_the_ends_nor_a_break_changes_a_search(search: str) -> None:
    planned = config(LR, search, samples=8 if search == "pbt" else 16)
    first = Driven(planned)
    first.run()
    late = Driven(planned, shuffled=3)
    late.run()
    assert late.values() == first.values()
    broken = Driven(planned)
    broken.run(limit=11)
    resumed = Driven(planned, events=broken.events)
    resumed.run()
    assert {**broken.values(), **resumed.values()} == first.values()


def test_tpe_goes_on_from_the_values_in_the_journal() -> None:
    known = {"s000": {"train.lr": 0.012345}}
    source = algorithm_of(config(LR, "tpe", samples=4), ahead=2, known=known)
    assert next(iter(source.ready.values())).trials[0].config.train.lr == 0.012345
    assert len(source.ready) == 2


@pytest.mark.parametrize("ahead", [2, 6])
def test_tpe_chooses_by_results_as_soon_as_it_says(ahead: int) -> None:
    """With other results the points from there on are others, none before."""
    planned = config(LR, "tpe", samples=16)
    rates = []
    for best in (1e-5, 1e-1):
        source = algorithm_of(planned, ahead=ahead, known={})
        found: list[float] = []
        while source.ready:
            segment = source.start(next(iter(source.ready)))
            rate = segment.trials[0].config.train.lr
            found.append(rate)
            psnr = -abs(math.log10(rate / best))
            result = Outcome(segment.trials[0].name, "finished", 64, {"psnr_y": psnr})
            source.tell(segment, [result])
        rates.append(found)
    assert planned.sweep
    same = [first == second for first, second in zip(*rates, strict=True)]
    assert same.index(False) == drawn_first(planned.sweep, ahead)


def test_tpe_knows_conditions_lists_failures_and_repeats() -> None:
    space = {
        "loss.pixel": {"choice": ["mse", "power"]},
        "loss.schedule": {
            "choice": {"anneal": {"kind": "power_anneal"}, "mix": {"kind": "convex_mix"}},
            "when": {"loss.pixel": "power"},
        },
        "train.batch_size": {"integers": [2, 16]},
        **LR,
    }
    driven = Driven(config(space, "tpe", samples=14, repeats=2))
    driven.run(fails=lambda segment: segment.trials[0].name == "s001,seed=6")
    assert len(driven.ended) == 28
    for segment, _ in driven.ended:
        loss = segment.trials[0].config.loss
        assert (loss.pixel == "power") == (loss.schedule is not None)
    by_point = {s.trials[0].point: s.trials[0].params for s, _ in driven.ended}
    assert len(by_point) == 14


def test_tpe_weighs_costs_and_keeps_limits() -> None:
    """The cost falls with the rate: with it as an objective, larger rates are tried more often."""
    medians = {}
    for costs in ((), ("parameters",)):
        driven = Driven(config(LR, "tpe", samples=40, costs=costs))
        driven.run()
        rates = [s.trials[0].config.train.lr for s, _ in driven.ended[15:]]
        medians[costs] = float(np.median(np.log10(rates)))
    assert medians[("parameters",)] > medians[()]
    limited = Driven(config(LR, "tpe", samples=40, limits={"parameters": 100}))  # rate above 1e-2
    limited.run()
    rates = [s.trials[0].config.train.lr for s, _ in limited.ended[20:]]
    assert np.median(rates) > 1e-2 > 5 * 10 ** medians[()]


def halved() -> Config:
    return config(LR, "asha", samples=16, asha={"first_steps": 4, "keep_one_in": 4})


def test_asha_finds_the_winner_in_a_part_of_the_steps() -> None:
    driven = Driven(halved())
    driven.run()
    reached: dict[str, int] = {}
    for segment, _ in driven.ended:
        reached[segment.trials[0].name] = segment.until
    every = [(figure(s), s.trials[0].name) for s, _ in driven.ended if s.until == 4]
    assert len(every) == 16
    assert reached[max(every)[1]] == 64
    assert sum(reached.values()) <= 0.4 * 16 * 64


def test_asha_goes_on_with_the_rungs_that_the_journal_has() -> None:
    whole = Driven(halved(), at_once=1)
    whole.run()
    for cut in (1, 7, 15):
        broken = Driven(halved(), at_once=1)
        broken.run(limit=cut)
        resumed = Driven(halved(), at_once=1, events=broken.events)
        resumed.run()
        both = [*broken.ended, *resumed.ended]
        assert [s.key for s, _ in both] == [s.key for s, _ in whole.ended]


def test_asha_always_brings_a_trial_to_its_end() -> None:
    for samples in (1, 2, 5, 8):
        driven = Driven(config(LR, "asha", samples=samples, asha={"first_steps": 4}))
        driven.run()
        assert max(segment.until for segment, _ in driven.ended) == 64
    lost = Driven(halved())
    lost.run(fails=lambda _: True)
    assert len(lost.ended) == 16


@pytest.mark.parametrize("samples", [4, 16])
@pytest.mark.parametrize("rung", [16, 64])
def test_where_the_promoted_fail_the_next_best_of_asha_go_on(samples: int, rung: int) -> None:
    """At a rung all but one fail: the first two of the order that all others would have won."""
    planned = config(LR, "asha", samples=samples, asha={"first_steps": 4})
    whole = Driven(planned)
    whole.run()
    first = {figure(s): s.trials[0].name for s, _ in whole.ended if s.until == 4}
    order = [name for _, name in sorted(first.items(), reverse=True)]
    driven = Driven(planned)
    driven.run(fails=lambda s: s.until == rung and s.trials[0].name in order[:2])
    (winner,) = (s for s, outcome in driven.ended if outcome.status == "finished")
    assert winner.trials[0].name == order[2]


def test_a_trial_that_fails_on_a_rung_ends_there() -> None:
    driven = Driven(halved())
    driven.run(fails=lambda segment: segment.trials[0].name == "s003")
    assert [s.until for s, _ in driven.ended if s.trials[0].name == "s003"] == [4]


def population(**pbt: Any) -> Config:
    return config(LR, "pbt", samples=8, pbt={"every_steps": 16, **pbt})


def test_the_worst_of_a_population_go_on_from_the_best_with_other_values() -> None:
    driven = Driven(population())
    driven.run()
    assert [s.until for s, _ in driven.ended] == [16] * 8 + [32] * 8 + [48] * 8 + [64] * 8
    first = {s.trials[0].name: (figure(s), s) for s, _ in driven.ended[:8]}
    order = sorted(first, key=lambda name: first[name][0])
    for segment, _ in driven.ended[8:16]:
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


def test_a_checkpoint_that_is_copied_is_still_there() -> None:
    """The parent may be an interval ahead by the time it is copied, and keeps two checkpoints."""
    for segment in algorithm_of(population(), ahead=2, known={}).ready.values():
        train = segment.trials[0].config.train
        assert train.checkpoint_every_steps == 16
        assert train.keep_checkpoints == 2


def test_a_population_goes_on_without_a_member_that_failed() -> None:
    driven = Driven(population())
    driven.run(fails=lambda segment: segment.trials[0].name == "s002" and segment.until == 32)
    assert [s.until for s, _ in driven.ended] == [16] * 8 + [32] * 8 + [48] * 7 + [64] * 7
    lost = Driven(population())
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
def test_a_varied_value_is_near_the_old_one(dimension: dict, value: Any, expected: set) -> None:
    rng = np.random.default_rng(0)
    found = {varied(Dimension(**dimension), value, rng)[1] for _ in range(40)}
    assert found == expected


def test_a_cohort_is_taken_from_what_is_alike_and_again_only_alone() -> None:
    space = {
        "train.lr": {"grid": [1e-4, 1e-3, 1e-2]},
        "model.encoder_seed": {"grid": [0, 1]},
    }
    queue = Queue(algorithm_of(config(space, "grid"), ahead=1, known={}))
    first, second = queue.take_cohort(2), queue.take_cohort(4)
    assert [s.key for s in first] == ["0.0001,0@64", "0.001,0@64"]
    assert [s.key for s in second] == ["0.0001,1@64", "0.001,1@64", "0.01,1@64"]
    for segment in first:
        queue.give_back(segment.key)
    again = [queue.take_cohort(4) for _ in range(3)]
    assert [[s.key for s in company] for company in again] == [
        ["0.0001,0@64"],
        ["0.001,0@64"],
        ["0.01,0@64"],
    ]
    assert queue.take_cohort(4) == []


def test_cohorts_stay_at_one_rung() -> None:
    space = {"train.lr": {"grid": [1e-5, 1e-4, 1e-3, 1e-2]}}
    rungs = {"first_steps": 8, "keep_one_in": 3}
    queue = Queue(algorithm_of(config(space, "asha", asha=rungs), ahead=1, known={}))
    begun = queue.take_cohort(3)
    assert len(begun) == 3
    for segment in begun:
        queue.done(segment.key, [outcome(segment, 64)])
    promoted = queue.take_cohort(3)
    assert [(s.trials[0].config.train.lr, s.until) for s in promoted] == [(1e-3, 24)]
    assert [s.until for s in queue.take_cohort(3)] == [8]
