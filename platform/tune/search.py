"""What a sweep does next: grid, random, TPE, ASHA and PBT, each a function of what came before.

A source hands out segments: one or more trials and the step to train them to. It is told what
came of each and may then have more. No source keeps a state that its history does not give back,
so a sweep that is resumed tells a new source the journal and goes on as if nothing had happened.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from derain.config import Config
from derain.config.sweep import Dimension
from derain.tune.space import Chosen, Trial, drawn, exists, ordered, plan, trials_of

FACTORS = (0.8, 1.25)
"""What a population's numbers are multiplied by: a step down takes a step up back."""


@dataclass(frozen=True)
class Segment:
    """A unit of work for one process: trials side by side, from where they are to a step."""

    trials: tuple[Trial, ...]
    until: int
    copies: tuple[str, int] | None = None
    """Name of the trial and step of its checkpoint that this one goes on from, not its own."""

    @property
    def key(self) -> str:
        """Unique in a sweep."""
        return f"{'+'.join(trial.name for trial in self.trials)}@{self.until}"


@dataclass(frozen=True)
class Outcome:
    """What came of one trial of a segment."""

    trial: str
    status: Literal["finished", "paused", "failed"]
    """`paused`: at the segment's step, before the run's last."""
    step: int
    metrics: Mapping[str, float] | None = None
    """On data.eval, of the weights at `step`."""
    result: Mapping[str, Any] | None = None
    """What the finished run wrote."""
    costs: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    may_pass: bool = False
    """Whether the failed trial could pass when it is run again."""


class Source(Protocol):
    """An algorithm; `ready` is what can be handed out now, in this order, by key."""

    ready: dict[str, Segment]

    def start(self, key: str) -> Segment:
        """Hand out a segment that is ready."""
        return self.ready.pop(key)

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Learn what came of a segment, for good: retries are over."""


def source_of(config: Config, *, ahead: int, known: Mapping[str, Mapping[str, Any]]) -> Source:
    """The algorithm that the config names.

    `ahead` is how many points TPE may be ahead of the results that it knows; `known` the values of
    the points that a journal has already.
    """
    assert config.sweep is not None
    if config.sweep.search == "tpe":
        from derain.tune.tpe import Suggested

        return Suggested(config, ahead=ahead, known=known)
    if config.sweep.search == "asha":
        return Halving(config)
    if config.sweep.search == "pbt":
        return Population(config)
    return Listed(config)


class Listed(Source):
    """`grid` and `random`: every trial to its end, whatever the others do."""

    def __init__(self, config: Config) -> None:
        self.ready = _by_key(Segment((t,), t.config.train.steps) for t in plan(config))

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Nothing follows."""


class Halving(Source):
    """`asha`: asynchronous successive halving (Li et al., 2020).

    Of the trials that have reached a rung the best 1 / keep_one_in go on to the next one, as soon
    as there are enough to say so, before new trials begin. Ray Tune's ASHAScheduler stops instead
    of promoting: there the first trials at a rung go on whatever they are (43 % of the grid's
    steps on 16 trials where this takes 19 %), and it keeps its state as a pickle.
    """

    def __init__(self, config: Config) -> None:
        assert config.sweep is not None
        self._metric, self._keep_one_in = config.sweep.metric, config.sweep.asha.keep_one_in
        self._rungs = rungs_of(config)
        self._reached: dict[int, dict[Trial, float]] = {rung: {} for rung in self._rungs}
        self._promoted: set[tuple[int, str]] = set()
        self._failed: set[str] = set()
        self._trials = {trial.name: trial for trial in plan(config)}
        self.ready = _by_key(Segment((t,), self._rungs[0]) for t in self._trials.values())
        self._open = len(self.ready)

    def start(self, key: str) -> Segment:
        """Where it is not ready, a journal has it: others were the best, or fewer, at that time."""
        if key not in self.ready:
            name, until = key.rsplit("@", 1)
            place = self._rungs.index(int(until))
            segment = self._promotion(self._trials[name], *self._rungs[place - 1 : place + 1])
            self._open += 1
            return segment
        return self.ready.pop(key)

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Promote whoever is now among the best of a rung."""
        (trial,), (outcome,) = segment.trials, outcomes
        self._open -= 1
        if outcome.status == "failed":
            self._failed.add(trial.name)
        elif outcome.metrics is not None:
            self._reached[segment.until][trial] = outcome.metrics[self._metric]
        promoted = [
            self._promotion(trial, rung, following)
            for rung, following in reversed(list(itertools.pairwise(self._rungs)))
            for trial in self._best(rung, len(self._reached[rung]) // self._keep_one_in)
        ]
        if not promoted and not self._open:
            promoted = self._overlooked()
        self._open += len(promoted)
        self.ready = {**_by_key(promoted), **self.ready}

    def _best(self, rung: int, count: int) -> list[Trial]:
        """Those of the best `count` at a rung that have not been promoted from it."""
        best = self._order(rung)[:count]
        return [trial for trial in best if (rung, trial.name) not in self._promoted]

    def _order(self, rung: int) -> list[Trial]:
        reached = self._reached[rung]
        return sorted(reached, key=lambda trial: (-reached[trial], trial.name))

    def _promotion(self, trial: Trial, rung: int, following: int) -> Segment:
        self._promoted.add((rung, trial.name))
        return Segment((trial,), following)

    def _overlooked(self) -> list[Segment]:
        """When nothing else is left: the best at a rung, of those that live, goes on from it.

        It has gone on already but where the rung is too thin to promote anyone, where those who
        were promoted failed since, or where a better one has come with more samples.
        """
        for rung, following in reversed(list(itertools.pairwise(self._rungs))):
            living = [trial for trial in self._order(rung) if trial.name not in self._failed]
            if living and (rung, living[0].name) not in self._promoted:
                return [self._promotion(living[0], rung, following)]
        return []


def rungs_of(config: Config) -> tuple[int, ...]:
    """The steps at which ASHA compares; the last one is the end."""
    assert config.sweep is not None
    settings, steps = config.sweep.asha, config.train.steps
    factor = settings.keep_one_in
    first = settings.first_steps or max(1, steps // factor**2)
    rungs = (first * factor**k for k in itertools.count())
    return (*itertools.takewhile(lambda rung: rung < steps, rungs), steps)


class Population(Source):
    """`pbt`: population based training (Jaderberg et al., 2017), one generation an interval.

    At the end of an interval the worst members take over weights, optimiser and values of one of
    the best, and vary the values. Ray Tune's own PBT decides in the order in which results
    arrive and draws from Python's global chance, so that no sweep could be repeated or resumed
    exactly; here a generation waits for its slowest member, and its chance is a function of
    (config.seed, step).
    """

    def __init__(self, config: Config) -> None:
        assert config.sweep is not None
        self._config, self._sweep = config, config.sweep
        self._steps = config.train.steps
        self._every = config.sweep.pbt.every_steps or max(1, self._steps // 10)
        self._members = {trial.name: self._ready_to_copy(trial) for trial in plan(config)}
        self._told: dict[str, Outcome] = {}
        self.ready: dict[str, Segment] = {}
        self._begin(0, {})

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """After the last member of a generation the next one begins."""
        (outcome,) = outcomes
        self._told[outcome.trial] = outcome
        if len(self._told) < len(self._members):
            return
        told, self._told = self._told, {}
        scores = {
            name: outcome.metrics[self._sweep.metric]
            for name, outcome in told.items()
            if outcome.status == "paused" and outcome.metrics is not None
        }
        self._members = {name: m for name, m in self._members.items() if name in scores}
        if self._members:
            self._begin(segment.until, self._replaced(segment.until, scores))

    def _begin(self, step: int, parents: Mapping[str, str]) -> None:
        until = min(step + self._every, self._steps)
        self.ready = _by_key(
            Segment((member,), until, (parents[name], step) if name in parents else None)
            for name, member in self._members.items()
        )

    def _replaced(self, step: int, scores: Mapping[str, float]) -> dict[str, str]:
        """Give the worst members the varied values of one of the best: child to parent."""
        order = sorted(scores, key=lambda name: (scores[name], name))
        count = min(math.ceil(len(order) * self._sweep.pbt.replaced_share), len(order) // 2)
        chance = np.random.default_rng([self._config.seed, step])
        parents = {}
        for name in order[:count]:
            parent = order[-1 - int(chance.integers(count))]
            params = self._varied(self._members[parent].params, chance)
            (child,) = trials_of(self._config, name, params)
            self._members[name], parents[name] = self._ready_to_copy(child), parent
        return parents

    def _varied(self, params: Mapping[str, Any], chance: np.random.Generator) -> dict[str, Any]:
        space, chosen = self._sweep.space, Chosen()
        for key in ordered(space):
            if not exists(space[key], chosen):
                continue
            if key not in params or chance.random() < self._sweep.pbt.redrawn_chance:
                chosen[key] = drawn(space[key], chance)
            else:
                chosen[key] = varied(space[key], params[key], chance)
        return {key: value for key, (_, value) in chosen.items()}

    def _ready_to_copy(self, trial: Trial) -> Trial:
        """A checkpoint at the end of each interval only: the two newest are always there."""
        values = {"train.checkpoint_every_steps": self._every, "train.keep_checkpoints": 2}
        config = trial.config.replaced(values, "sweep.pbt")
        return Trial(trial.name, trial.point, trial.params, config)


def varied(dimension: Dimension, value: Any, chance: np.random.Generator) -> tuple[str, Any]:
    """A value near another one: a neighbour in a list, a number times 0.8 or 1.25 in its range."""
    if dimension.ends is None:
        named = list(dimension.named().items())
        at = [each for _, each in named].index(value) + int(chance.choice((-1, 1)))
        return named[min(max(at, 0), len(named) - 1)]
    low, high = dimension.ends
    factor = float(chance.choice(FACTORS))
    moved = min(max(value * factor, low), high)
    if dimension.integers is not None:
        away = math.floor(moved) if factor < 1 else math.ceil(moved)
        return str(away), int(min(max(away, low), high))
    return str(moved), moved


def _by_key(segments: Any) -> dict[str, Segment]:
    return {segment.key: segment for segment in segments}
