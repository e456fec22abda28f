"""The search algorithms by the name that `sweep.search` gives them: add yours here."""

from collections.abc import Mapping
from typing import Any

from derain.config import Config
from derain.tune.search.asha import Halving
from derain.tune.search.grid_random import Listed
from derain.tune.search.pbt import Population
from derain.tune.search.segments import SearchAlgorithm


def algorithm_of(
    config: Config, *, ahead: int, known: Mapping[str, Mapping[str, Any]]
) -> SearchAlgorithm:
    """The algorithm that the config names.

    `ahead` is how many points TPE may be ahead of the results that it knows; `known` the values of
    the points that a journal has already.
    """
    assert config.sweep is not None
    if config.sweep.search == "tpe":
        from derain.tune.search.tpe import Suggested  # Optuna, a second to import

        return Suggested(config, ahead=ahead, known=known)
    if config.sweep.search == "asha":
        return Halving(config)
    if config.sweep.search == "pbt":
        return Population(config)
    return Listed(config)
