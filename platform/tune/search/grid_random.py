"""`grid` and `random`: a list of trials that is known before the sweep begins."""

from collections.abc import Sequence

from derain.config import Config
from derain.tune.search.segments import Outcome, SearchAlgorithm, Segment, by_key
from derain.tune.space import plan


class Listed(SearchAlgorithm):
    """`grid` and `random`: every trial to its end, whatever the others do."""

    def __init__(self, config: Config) -> None:
        self.ready = by_key(Segment((t,), t.config.train.steps) for t in plan(config))

    def tell(self, segment: Segment, outcomes: Sequence[Outcome]) -> None:
        """Nothing follows."""
