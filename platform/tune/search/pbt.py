"""`pbt`: a population whose worst members take over the weights and values of the best."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from derain.config import Config
from derain.config.sweep import Dimension
from derain.tune.search.base import Outcome, SearchAlgorithm, Segment, by_key
from derain.tune.space import Chosen, Trial, draw_value, is_active, ordered_keys, plan, trials_of

FACTORS = (0.8, 1.25)
"""A number is multiplied by one of these; they are each other's inverse."""


class PBT(SearchAlgorithm):
    """`pbt`: population based training (Jaderberg et al., 2017), one generation per interval.

    At the end of an interval the worst members take over the weights, optimiser and values of one
    of the best, and the values are perturbed. Ray Tune's own PBT is not used: it decides in the
    order in which results arrive and draws from Python's global random state, so no sweep could be
    repeated or resumed exactly. Here a generation waits for its slowest member, and its random
    state is a function of (config.seed, step).
    """

    def __init__(self, config: Config) -> None:
        assert config.sweep is not None
        self._config, self._sweep = config, config.sweep
        self._steps = config.train.steps
        self._interval = interval_of(config)
        self._members = {trial.name: self._with_checkpoints(trial) for trial in plan(config)}
        self._outcomes: dict[str, Outcome] = {}
        self.ready = self._generation(0, {})

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Start the next generation after the last outcome of this one."""
        (outcome,) = outcomes
        self._outcomes[outcome.trial] = outcome
        if len(self._outcomes) < len(self._members):
            return
        scores = {
            name: outcome.metrics[self._sweep.metric]
            for name, outcome in self._outcomes.items()
            if outcome.status == "paused" and outcome.metrics is not None
        }
        self._outcomes = {}
        self._members = {name: m for name, m in self._members.items() if name in scores}
        if self._members:
            parents = self._replace_worst(segment.until, scores)
            self.ready = self._generation(segment.until, parents)

    def _generation(self, step: int, parents: Mapping[str, str]) -> dict[str, Segment]:
        """The segments of the interval that starts at `step`; `parents`: child to parent."""
        until = min(step + self._interval, self._steps)
        return by_key(
            Segment((member,), until, (parents[name], step) if name in parents else None)
            for name, member in self._members.items()
        )

    def _replace_worst(self, step: int, scores: Mapping[str, float]) -> dict[str, str]:
        """Give each of the worst members the perturbed values of one of the best.

        Returns the names, child to parent.
        """
        order = sorted(scores, key=lambda name: (scores[name], name))
        count = min(math.ceil(len(order) * self._sweep.pbt.replaced_share), len(order) // 2)
        rng = np.random.default_rng([self._config.seed, step])
        parents = {}
        for name in order[:count]:
            parent = order[-1 - int(rng.integers(count))]
            params = self._perturb_all(self._members[parent].params, rng)
            (child,) = trials_of(self._config, name, params)
            self._members[name], parents[name] = self._with_checkpoints(child), parent
        return parents

    def _perturb_all(self, params: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        space, chosen = self._sweep.space, Chosen()
        for key in ordered_keys(space):
            if not is_active(space[key], chosen):
                continue
            if key not in params or rng.random() < self._sweep.pbt.redrawn_chance:
                chosen[key] = draw_value(space[key], rng)
            else:
                chosen[key] = perturb(space[key], params[key], rng)
        return {key: value for key, (_, value) in chosen.items()}

    def _with_checkpoints(self, trial: Trial) -> Trial:
        """The trial with a checkpoint at the end of each interval only, the newest two kept.

        A parent may be one interval ahead by the time it is copied.
        """
        values = {"train.checkpoint_every_steps": self._interval, "train.keep_checkpoints": 2}
        config = trial.config.replaced(values, "sweep.pbt")
        return Trial(trial.name, trial.point, trial.params, config)


def interval_of(config: Config) -> int:
    """The number of steps after which PBT compares its members."""
    assert config.sweep is not None
    return config.sweep.pbt.every_steps or max(1, config.train.steps // 10)


def perturb(dimension: Dimension, value: Any, rng: np.random.Generator) -> tuple[str, Any]:
    """Name and value of a neighbour: the one before or after in a list, or 0.8 or 1.25 times."""
    if dimension.ends is None:
        options = list(dimension.named().items())
        index = [option for _, option in options].index(value) + int(rng.choice((-1, 1)))
        return options[min(max(index, 0), len(options) - 1)]
    low, high = dimension.ends
    factor = float(rng.choice(FACTORS))
    scaled = min(max(value * factor, low), high)
    if dimension.integers is not None:
        rounded = math.floor(scaled) if factor < 1 else math.ceil(scaled)
        return str(rounded), int(min(max(rounded, low), high))
    return str(scaled), scaled
