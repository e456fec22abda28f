"""`asha`: most trials end early, the best go on to the next rung."""

import itertools
from collections.abc import Sequence

from derain.config import Config
from derain.tune.search.segments import Outcome, SearchAlgorithm, Segment, by_key
from derain.tune.space import Trial, plan


class Halving(SearchAlgorithm):
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
        self.ready = by_key(Segment((t,), self._rungs[0]) for t in self._trials.values())
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
        self.ready = {**by_key(promoted), **self.ready}

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
