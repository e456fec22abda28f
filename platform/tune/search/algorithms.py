"""The search algorithms by the name that `sweep.search` gives them.

To add one:
1. Subclass `SearchAlgorithm` (`base.py`) in a module of its own in this folder. It fills `ready` in
   `__init__` and adds to it in `tell`. Trials come from `space.plan`, or from `space.trials_of` if
   their values depend on results. Take all randomness from (config.seed, a counter), and keep no
   state that replaying the journal would not restore.
2. Add its name to `SweepConfig.search` in `config/sweep.py`, with a section for its options if it
   has any, and return it from `algorithm_of` below.
3. Where algorithms differ, the code compares `sweep.search`: whether trials may share a process
   (`running/cohorts.py`), whether a failed trial may be run again (`running/queue.py`), how the
   space may grow (`resume.py`), what a dry run can show (`dry_run.py`), the number of steps
   (`estimate.py`). The default in all of these is what `grid` does.
4. Add it to `tests/tune/search/test_search.py`, which runs it without training, and to `SEARCHES`
   in `tests/tune/test_sweep.py`, which runs it under Ray.
"""

from collections.abc import Mapping
from typing import Any

from derain.config import Config
from derain.tune.search.asha import ASHA, rungs_of
from derain.tune.search.base import SearchAlgorithm
from derain.tune.search.grid_random import GridOrRandom
from derain.tune.search.pbt import PBT, interval_of


def algorithm_of(
    config: Config, *, ahead: int, known: Mapping[str, Mapping[str, Any]]
) -> SearchAlgorithm:
    """The algorithm that the config names.

    `ahead`: by how many points TPE may run ahead of its results. `known`: the values of points that
    a journal already holds, by point name.
    """
    assert config.sweep is not None
    if config.sweep.search == "tpe":
        from derain.tune.search.tpe import TPE  # imports Optuna, which takes a second

        return TPE(config, ahead=ahead, known=known)
    if config.sweep.search == "asha":
        return ASHA(config)
    if config.sweep.search == "pbt":
        return PBT(config)
    return GridOrRandom(config)


def first_comparison(config: Config) -> int | None:
    """The step at which the search first compares trials; None if only at their ends."""
    assert config.sweep is not None
    if config.sweep.search == "asha":
        return rungs_of(config)[0]
    return interval_of(config) if config.sweep.search == "pbt" else None
