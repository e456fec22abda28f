"""Which trials of a sweep may train side by side in one process (a cohort), and how many."""

import math
from collections.abc import Hashable

from derain.config import Config
from derain.config.flat import covers, flattened

MAY_DIFFER = frozenset(
    {
        "name",
        "model.ldfps_sigma",
        "model.ldfps_kind",
        "model.drop_path",
        "model.layer_scale",
        "model.up",
        "model.output",
        "model.mask_weight",
        "train.steps",
        "train.optimizer",
        "train.lr_schedule",
        "train.lr",
        "train.lr_min",
        "train.warmup_steps",
        "train.constant_share",
        "train.weight_decay",
        "train.betas",
        "train.clip_norm",
        "train.ema_decay",
    }
)
"""Keys that affect neither the batches nor the frozen parts; the whole loss may differ too."""

LARGEST = 4
"""Most members of a cohort under `auto`. Four get three quarters of the largest possible saving;
no result of a cohort arrives before the time of all its trials has passed."""


LEAST_GAIN = 1.15
"""Cohorts of two that saved 5 % by their share were 8 % slower than two trials at once (the paper's
network), those that saved 28 % were 24 % faster: docs/measurements/cohorts.md."""


def cohort_key(config: Config) -> Hashable:
    """A value that is equal for trials that may train in one cohort.

    It holds every key that is not in `MAY_DIFFER`, so a new config key separates trials until it is
    listed there. Of the seeds only that of the data counts: with `data.seed` set, trials with
    different seeds may share a cohort.
    """
    tree = config.model_dump(mode="json", exclude={"loss", "seed", "sweep", "register_"})
    leaves = {
        key: value
        for key, value in flattened(tree).items()
        if not any(covers(name, key) for name in MAY_DIFFER)
    }
    leaves["data.seed"] = config.data_seed
    return tuple(sorted((key, repr(value)) for key, value in leaves.items()))


def size_of(config: Config, trials: int, at_once: int, shared: float) -> int:
    """Members per cohort in a sweep of `trials` trials on `at_once` processes; 1: no cohorts.

    `auto` gives every process an equal share in as few rounds as `LARGEST` allows: two cores train
    two cohorts of two faster than one of four, since a step is too small to be split among cores.
    It takes cohorts only if they save enough (`LEAST_GAIN`), by `shared`, the share of a step that
    is computed once for all members, as the sweep's estimate has measured it.

    1 for TPE and PBT, which start single trials; if seconds are a cost, which must be those of one
    trial; for a compiled network, whose encoder cannot be shared; and under `auto` if a trial
    measures how much fits in memory.
    """
    assert config.sweep is not None
    sweep, train = config.sweep, config.train
    one_by_one = sweep.search in ("tpe", "pbt") or "seconds" in {*sweep.costs, *sweep.limits}
    if sweep.cohort == "off" or one_by_one or train.num_workers != 1 or train.compile:
        return 1
    if isinstance(sweep.cohort, int):
        return sweep.cohort
    if train.micro_batch_size == "auto":
        return 1
    rounds = math.ceil(trials / (LARGEST * at_once))
    size = math.ceil(trials / (rounds * at_once))
    return size if gain(size, shared) >= LEAST_GAIN else 1


def gain(size: int, shared: float) -> float:
    """How many times as fast a cohort is at most: members take 1 + (size - 1)(1 - shared) steps'
    time instead of `size`."""
    return size / (1 + (size - 1) * (1 - shared))
