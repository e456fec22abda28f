"""What is checked before the first step of a run: sizes and labels in the index, and the network.

Nothing is decoded, no folder is claimed, and neither Ray nor the store is asked.
"""

import logging
from collections.abc import Sequence
from typing import Any

from derain.config import Config
from derain.data.prepared.manifest import Prepared
from derain.data.prepared.roles import open_test, open_training, open_validation
from derain.errors import DataError, UsageError
from derain.evaluation.scoring import sizes, too_small
from derain.pipelines.train.datasets import check_data, check_roles
from derain.training.averaging import warn_of_initial_weights
from derain.training.factory import describe, without_pretrained
from derain.training.rehearsal import rehearse

log = logging.getLogger(__name__)


def check_before_start(configs: Sequence[Config]) -> None:
    """Raise a UsageError if a run could not begin, or not end; of several it names each.

    Runs that differ in nothing that matters here are checked once.
    """
    checked: dict[str, tuple[int, int] | None] = {}
    rehearsed: set[str] = set()
    problems: list[tuple[str, UsageError]] = []
    for config in configs:
        images = _what_images_depend_on(config)
        try:
            if images not in checked:
                checked[images] = None
                checked[images] = check_images(config)
            network = _what_shapes_depend_on(config)
            if network not in rehearsed:
                rehearsed.add(network)
                rehearse(config, checked[images])
        except UsageError as error:
            problems.append((config.name, error))
    if len(configs) == 1 and problems:
        raise problems[0][1]
    if problems:
        raise type(problems[0][1])("\n".join(f"{name}: {error}" for name, error in problems))


def describe_checked(config: Config) -> dict[str, Any]:
    """The output of `derainctl train --dry-run --json`, for a run that could begin.

    Pretrained weights and `train.start_from` are not loaded. Data is checked if the config names
    any. Raises what `check_before_start` raises.
    """
    smallest = check_images(config) if config.data.train else None
    start = config.replaced({"train.start_from": None}, "--dry-run")
    rehearse(without_pretrained(start), smallest)
    warn_of_initial_weights([config.train])
    return describe(config)


def check_images(config: Config) -> tuple[int, int] | None:
    """Check the datasets by their indices; returns (height, width) of the smallest image that is
    scored.

    None for synthetic datasets that have not been rendered. Raises DataError for validation or
    test images that `eval.protocol` cannot measure, and what `check_data` raises.
    """
    check_data(config)
    if not config.data.train:
        return None
    check_roles(config.data)
    measured = [*open_validation(config.data), *open_test(config.data)]
    for dataset in open_training(config.data):
        if config.data.stratify:
            dataset.labels(config.data.stratify)
        _warn_of_small(config, dataset)
    problems = [text for dataset in measured if (text := _unmeasurable(config, dataset))]
    if problems:
        raise DataError("\n".join(problems))
    both = [(int(h), int(w)) for dataset in measured for h, w in zip(*sizes(dataset), strict=True)]
    return min(both, key=min)


def _unmeasurable(config: Config, dataset: Prepared) -> str | None:
    """Why a dataset cannot be scored whole, in one sentence; None if it can."""
    protocol = config.eval.protocol
    reasons = list(too_small(dataset, [protocol]).values())
    if not reasons:
        return None
    more = f" (and {len(reasons) - 1} more of its images)" if len(reasons) > 1 else ""
    return (
        f"{dataset.folder}: {reasons[0]}{more}. A mean over the other images would not be that of "
        "the set: remove these images from the source and prepare it again, or name another "
        "dataset. (`derainctl evaluate` scores the others and lists these.)"
    )


def _warn_of_small(config: Config, dataset: Prepared) -> None:
    """Log how many training images are smaller than the largest crop, which mirrors them."""
    crop_px = max(stage.crop_px for stage in config.train.stages)
    heights, widths = sizes(dataset)
    small = (heights < crop_px) | (widths < crop_px)
    if small.any():
        at = int(small.argmax())
        log.warning(
            "data.train %s: %d of %d images are smaller than crops of %d px and are mirrored at "
            "their edges, %s with %dx%d px for example.", dataset.folder, small.sum(), len(dataset),
            crop_px, dataset.column("key")[at], widths[at], heights[at],
        )  # fmt: skip


def _what_images_depend_on(config: Config) -> str:
    data, crops = config.data, [stage.crop_px for stage in config.train.stages]
    roles = (data.train, data.validation, data.validation_share, data.choose_on_test, data.test)
    return repr((roles, data.stratify, config.eval.protocol, max(crops)))


def _what_shapes_depend_on(config: Config) -> str:
    """Everything that network, loss and crops depend on; the weights of the loss's terms only count
    as on or off."""
    loss = config.loss.model_dump(mode="json")
    weights = ("lambda_p", "lambda_c", "contrastive_floor")
    loss |= {key: bool(loss[key]) for key in weights}
    loss["contrastive_weights"] = len(loss["contrastive_weights"])
    loss["terms"] = [{**term, "weight": bool(term["weight"])} for term in loss["terms"]]
    crops = [stage.crop_px for stage in config.train.stages]
    train = (config.train.precision, config.train.start_from, crops)
    chosen = (config.train.optimizer, config.train.lr_schedule, config.data.augment)
    return repr((config.model.model_dump(mode="json"), loss, train, chosen))
