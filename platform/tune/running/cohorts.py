"""Which trials of a sweep may train side by side in one process, and how many."""

import math
from collections.abc import Hashable

from derain.config import Config
from derain.config.flat import flattened

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
"""Keys that change neither the batches nor what is frozen; the loss may differ as a whole."""

LARGEST = 4
"""Members of a cohort under `auto`: four have three quarters of what any number would save, and
their first results come after four trials' time."""


def common_ground(config: Config) -> Hashable:
    """Equal for trials that may train in one cohort.

    It is every key that is not in `MAY_DIFFER`, so a key that is new here keeps trials apart. The
    seed counts as far as the batches go: with `data.seed`, trials of several seeds are alike.
    """
    tree = config.model_dump(mode="json", exclude={"loss", "seed", "sweep", "register_"})
    leaves = {key: value for key, value in flattened(tree).items() if key not in MAY_DIFFER}
    leaves["data.seed"] = config.data_seed
    return tuple(sorted((key, repr(value)) for key, value in leaves.items()))


def size_of(config: Config, trials: int, at_once: int) -> int:
    """Members of a cohort in a sweep of so many trials, `at_once` processes working on them.

    `auto` gives every process its share in as few rounds as `LARGEST` allows: two cores train two
    cohorts of two faster than one of four, since a step is too small to share among cores. TPE and
    PBT hand out single trials, seconds are to be those of one trial, and a compiled network has its
    encoder inside.
    """
    assert config.sweep is not None
    sweep, train = config.sweep, config.train
    wanted = sweep.cohort
    one_by_one = sweep.search in ("tpe", "pbt") or "seconds" in {*sweep.costs, *sweep.limits}
    if wanted == "off" or one_by_one or train.num_workers != 1 or train.compile:
        return 1
    if isinstance(wanted, int):
        return wanted
    if not has_something_to_share(config):
        return 1
    rounds = math.ceil(trials / (LARGEST * at_once))
    return math.ceil(trials / (rounds * at_once))


def has_something_to_share(config: Config) -> bool:
    """Whether a step asks something frozen about the rainy or the clean image."""
    model, loss = config.model, config.loss
    features = {loss.perceptual if loss.lambda_p else "none"}
    features |= {loss.contrastive if loss.lambda_c else "none"}
    return (
        getattr(model, "encoder_bn_mode", None) == "frozen"
        or getattr(model, "routing", None) in ("hard", "soft")
        or bool(features & {"vgg16", "vgg19"})
    )
