"""`tpe`: the next point from the results of earlier ones, by Optuna's tree of Parzen estimators.

Point n is a function of (config.seed, n, results of the points 0 to n - ahead). Until enough
results are in, a point is drawn at random; how many are needed depends on the number of samples.
Results are used in the order of the points only, so neither the order in which trials end nor an
interruption changes a sweep.
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
from derain.tune.search.base import Outcome, SearchAlgorithm, Segment
from derain.tune.space import Chosen, check_space, is_active, ordered_keys, sample_name, trials_of

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TPE(SearchAlgorithm):
    """`tpe`: one point at a time, with several objectives if `sweep.costs` names any.

    Optuna receives the names of listed values, so that lists and mappings can be suggested too. A
    key that exists only for some values of another is a conditional parameter.
    """

    def __init__(
        self, config: Config, *, ahead: int, known: Mapping[str, Mapping[str, Any]]
    ) -> None:
        check_space(config)
        assert config.sweep is not None
        self._config, self._sweep, self._ahead = config, config.sweep, ahead
        self._points: dict[int, dict[str, Any]] = {}
        self._outcomes: dict[int, dict[str, Outcome]] = {}
        self.ready = {}
        for number in range(config.sweep.samples or 0):
            if sample_name(number) in known:
                self._add(number, known[sample_name(number)])
        self._suggest_all()

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Record outcomes; a point counts once all its repeats have ended."""
        numbers = {sample_name(number): number for number in self._points}
        for trial, outcome in zip(segment.trials, outcomes, strict=True):
            self._outcomes[numbers[trial.point]][outcome.trial] = outcome
        self._suggest_all()

    def _suggest_all(self) -> None:
        """Add every new point for which enough earlier points have ended."""
        for number in range(self._sweep.samples or 0):
            if number in self._points:
                continue
            earlier = max(0, number - self._ahead + 1)
            if any(len(self._outcomes.get(n, ())) < self._sweep.repeats for n in range(earlier)):
                return
            self._add(number, self._suggest(number, earlier))

    def _add(self, number: int, params: Mapping[str, Any]) -> None:
        self._points[number], self._outcomes[number] = dict(params), {}
        for trial in trials_of(self._config, sample_name(number), params):
            segment = Segment((trial,), trial.config.train.steps)
            self.ready[segment.key] = segment

    def _suggest(self, number: int, earlier: int) -> dict[str, Any]:
        """The values of point `number`, from the results of the first `earlier` points."""
        seed = int(mix64(self._config.seed, number)) % 2**32
        study = optuna.create_study(
            directions=[StudyDirection.MAXIMIZE]
            + [StudyDirection.MINIMIZE] * len(self._sweep.costs),
            sampler=optuna.samplers.TPESampler(
                n_startup_trials=_results_needed(self._sweep), seed=seed
            ),
        )
        for n in range(earlier):
            study.add_trial(self._optuna_trial(n))
        trial = study.ask()
        space, chosen = self._sweep.space, Chosen()
        for key in ordered_keys(space):
            if is_active(space[key], chosen):
                suggested = _suggest_value(trial, key, space[key])
                chosen[key] = (str(suggested), space[key].named().get(suggested, suggested))
        return {key: value for key, (_, value) in chosen.items()}

    def _optuna_trial(self, number: int) -> optuna.trial.FrozenTrial:
        """A point that has ended; it has failed if any of its repeats has."""
        space, params = self._sweep.space, self._points[number]
        outcomes = list(self._outcomes[number].values())
        complete = all(outcome.status == "finished" for outcome in outcomes)
        return create_trial(
            state=TrialState.COMPLETE if complete else TrialState.FAIL,
            values=[_mean(outcomes, name) for name in self._objectives()] if complete else None,
            params={key: _option_name(space[key], value) for key, value in params.items()},
            distributions={key: _distribution(space[key]) for key in params},
            constraints={
                cost: _mean(outcomes, cost) - limit for cost, limit in self._sweep.limits.items()
            }
            if complete
            else None,
        )

    def _objectives(self) -> tuple[str, ...]:
        return (self._sweep.metric, *self._sweep.costs)


def random_points(sweep: SweepConfig, ahead: int) -> int:
    """How many points are drawn at random before the first one chosen from results."""
    return _results_needed(sweep) + ahead - 1


def _results_needed(sweep: SweepConfig) -> int:
    """Results needed for a choice: Optuna's 10, or a third of the samples if that is fewer."""
    return min(10, max(1, (sweep.samples or 0) // 3))


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.integers is not None:
        return IntDistribution(*dimension.integers)
    if dimension.ends is not None:
        return FloatDistribution(*dimension.ends, log=dimension.loguniform is not None)
    return CategoricalDistribution(tuple(dimension.named()))


def _suggest_value(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    if dimension.integers is not None:
        return trial.suggest_int(key, *dimension.integers)
    if dimension.ends is not None:
        return trial.suggest_float(key, *dimension.ends, log=dimension.loguniform is not None)
    return trial.suggest_categorical(key, tuple(dimension.named()))


def _option_name(dimension: Dimension, value: Any) -> Any:
    """The name of a listed value; a number from a range is itself."""
    options = dimension.named().items()
    return next((name for name, option in options if option == value), value)


def _mean(outcomes: Sequence[Outcome], name: str) -> float:
    values = [{**(outcome.metrics or {}), **outcome.costs}[name] for outcome in outcomes]
    return sum(values) / len(values)
