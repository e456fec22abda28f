"""`grid` and `random`: all trials are known before the sweep starts."""

from collections.abc import Sequence

from derain.config import Config
from derain.tune.search.base import Outcome, SearchAlgorithm, Segment, by_key
from derain.tune.space import plan


class GridOrRandom(SearchAlgorithm):
    """`grid` and `random`: train every trial to its last step, whatever the results."""

    def __init__(self, config: Config) -> None:
        self.ready = by_key(Segment((t,), t.config.train.steps) for t in plan(config))

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Do nothing: no trial depends on a result."""
