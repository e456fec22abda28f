"""`pbt`: a population whose worst members take over the weights and values of the best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from derain.config import Config
from derain.config.sweep import Dimension
from derain.tune.search.segments import Outcome, SearchAlgorithm, Segment, by_key
from derain.tune.space import Chosen, Trial, drawn, exists, ordered, plan, trials_of

FACTORS = (0.8, 1.25)
"""What a population's numbers are multiplied by: a step down takes a step up back."""


class Population(SearchAlgorithm):
    """`pbt`: population based training (Jaderberg et al., 2017), one generation an interval.

    At the end of an interval the worst members take over weights, optimiser and values of one of
    the best, and vary the values. Ray Tune's own PBT decides in the order in which results
    arrive and draws from Python's global random state, so that no sweep could be repeated or
    resumed exactly; here a generation waits for its slowest member, and its random state is a
    function of (config.seed, step).
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
        self.ready = by_key(
            Segment((member,), until, (parents[name], step) if name in parents else None)
            for name, member in self._members.items()
        )

    def _replaced(self, step: int, scores: Mapping[str, float]) -> dict[str, str]:
        """Give the worst members the varied values of one of the best: child to parent."""
        order = sorted(scores, key=lambda name: (scores[name], name))
        count = min(math.ceil(len(order) * self._sweep.pbt.replaced_share), len(order) // 2)
        rng = np.random.default_rng([self._config.seed, step])
        parents = {}
        for name in order[:count]:
            parent = order[-1 - int(rng.integers(count))]
            params = self._varied(self._members[parent].params, rng)
            (child,) = trials_of(self._config, name, params)
            self._members[name], parents[name] = self._ready_to_copy(child), parent
        return parents

    def _varied(self, params: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        space, chosen = self._sweep.space, Chosen()
        for key in ordered(space):
            if not exists(space[key], chosen):
                continue
            if key not in params or rng.random() < self._sweep.pbt.redrawn_chance:
                chosen[key] = drawn(space[key], rng)
            else:
                chosen[key] = varied(space[key], params[key], rng)
        return {key: value for key, (_, value) in chosen.items()}

    def _ready_to_copy(self, trial: Trial) -> Trial:
        """A checkpoint at the end of each interval only: the two newest are always there."""
        values = {"train.checkpoint_every_steps": self._every, "train.keep_checkpoints": 2}
        config = trial.config.replaced(values, "sweep.pbt")
        return Trial(trial.name, trial.point, trial.params, config)


def varied(dimension: Dimension, value: Any, rng: np.random.Generator) -> tuple[str, Any]:
    """A value near another one: a neighbour in a list, a number times 0.8 or 1.25 in its range."""
    if dimension.ends is None:
        named = list(dimension.named().items())
        at = [each for _, each in named].index(value) + int(rng.choice((-1, 1)))
        return named[min(max(at, 0), len(named) - 1)]
    low, high = dimension.ends
    factor = float(rng.choice(FACTORS))
    moved = min(max(value * factor, low), high)
    if dimension.integers is not None:
        away = math.floor(moved) if factor < 1 else math.ceil(moved)
        return str(away), int(min(max(away, low), high))
    return str(moved), moved
