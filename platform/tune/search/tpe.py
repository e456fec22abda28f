"""`tpe`: the next point from the results of earlier ones, by Optuna's tree of Parzen estimators.

Point n is a function of (config.seed, n, results of the points 0 to n - ahead), and the samples say
how many results it needs before it is no longer drawn at random. No result is used before its turn,
so neither the order in which trials end nor an interruption changes a sweep.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from derain.config import Config
from derain.config.sweep import Dimension, SweepConfig
from derain.data.loading.order import mix64
from derain.tune.search.segments import Outcome, SearchAlgorithm, Segment
from derain.tune.space import Chosen, check, exists, ordered, sample_name, trials_of

optuna.logging.set_verbosity(optuna.logging.WARNING)

_SMALLER = StudyDirection.MINIMIZE


class Suggested(SearchAlgorithm):
    """One point at a time; several objectives where `sweep.costs` names some.

    Values are told to Optuna by their names, so that lists and mappings can be suggested. Where a
    key exists only for some values of another, Optuna gets conditional parameters.
    """

    def __init__(
        self, config: Config, *, ahead: int, known: Mapping[str, Mapping[str, Any]]
    ) -> None:
        check(config)
        assert config.sweep is not None
        self._config, self._sweep, self._ahead = config, config.sweep, ahead
        self._points: dict[int, dict[str, Any]] = {}
        self._told: dict[int, dict[str, Outcome]] = {}
        self.ready: dict[str, Segment] = {}
        for number in range(config.sweep.samples or 0):
            if sample_name(number) in known:
                self._add(number, known[sample_name(number)])
        self._suggest_all()

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """A point counts once all its repeats have ended."""
        numbers = {sample_name(number): number for number in self._points}
        for trial, outcome in zip(segment.trials, outcomes, strict=True):
            self._told[numbers[trial.point]][outcome.trial] = outcome
        self._suggest_all()

    def _suggest_all(self) -> None:
        """Every point whose turn has come, beside those that are known."""
        for number in range(self._sweep.samples or 0):
            if number in self._points:
                continue
            seen = max(0, number - self._ahead + 1)
            if any(len(self._told.get(n, ())) < self._sweep.repeats for n in range(seen)):
                return
            self._add(number, self._suggested(number, seen))

    def _add(self, number: int, params: Mapping[str, Any]) -> None:
        self._points[number], self._told[number] = dict(params), {}
        for trial in trials_of(self._config, sample_name(number), params):
            segment = Segment((trial,), trial.config.train.steps)
            self.ready[segment.key] = segment

    def _suggested(self, number: int, seen: int) -> dict[str, Any]:
        seed = int(mix64(self._config.seed, number)) % 2**32
        study = optuna.create_study(
            directions=[StudyDirection.MAXIMIZE]
            + [StudyDirection.MINIMIZE] * len(self._sweep.costs),
            sampler=optuna.samplers.TPESampler(n_startup_trials=_needed(self._sweep), seed=seed),
        )
        for earlier in range(seen):
            study.add_trial(self._frozen(earlier))
        trial = study.ask()
        space, chosen = self._sweep.space, Chosen()
        for key in ordered(space):
            if exists(space[key], chosen):
                told = _asked(trial, key, space[key])
                chosen[key] = (str(told), space[key].named().get(told, told))
        return {key: value for key, (_, value) in chosen.items()}

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        """An earlier point as Optuna knows it; one of which a repeat failed has no value."""
        space, params = self._sweep.space, self._points[number]
        outcomes = list(self._told[number].values())
        whole = all(outcome.status == "finished" for outcome in outcomes)
        return create_trial(
            state=TrialState.COMPLETE if whole else TrialState.FAIL,
            values=[_mean(outcomes, name) for name in self._objectives()] if whole else None,
            params={key: _name_of(space[key], value) for key, value in params.items()},
            distributions={key: distribution(space[key]) for key in params},
            constraints={
                cost: _mean(outcomes, cost) - limit for cost, limit in self._sweep.limits.items()
            }
            if whole
            else None,
        )

    def _objectives(self) -> tuple[str, ...]:
        return (self._sweep.metric, *self._sweep.costs)


def drawn_first(sweep: SweepConfig, ahead: int) -> int:
    """How many points are drawn at random, before the first that results have chosen."""
    return _needed(sweep) + ahead - 1


def _needed(sweep: SweepConfig) -> int:
    """Results that a choice needs: Optuna's 10, or a third of the samples where they are few."""
    return min(10, max(1, (sweep.samples or 0) // 3))


def distribution(dimension: Dimension) -> BaseDistribution:
    """A dimension in Optuna's words."""
    if dimension.integers is not None:
        return IntDistribution(*dimension.integers)
    if dimension.ends is not None:
        return FloatDistribution(*dimension.ends, log=dimension.loguniform is not None)
    return CategoricalDistribution(tuple(dimension.named()))


def _asked(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    if dimension.integers is not None:
        return trial.suggest_int(key, *dimension.integers)
    if dimension.ends is not None:
        return trial.suggest_float(key, *dimension.ends, log=dimension.loguniform is not None)
    return trial.suggest_categorical(key, tuple(dimension.named()))


def _name_of(dimension: Dimension, value: Any) -> Any:
    """What Optuna calls a value: listed ones by their name."""
    return next((name for name, each in dimension.named().items() if each == value), value)


def _mean(outcomes: Sequence[Outcome], name: str) -> float:
    figures = [{**(outcome.metrics or {}), **outcome.costs}[name] for outcome in outcomes]
    return sum(figures) / len(figures)
