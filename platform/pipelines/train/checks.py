"""What is checked before the first step of a run: sizes and labels in the index, the shards, the
network, and the room on the disk.

Nothing is decoded, no folder is claimed, and neither Ray nor the store is asked. The commands raise
the first problem; `--dry-run` makes the same checks and lists all problems.
"""

import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from torch import nn

from derain.config import Config
from derain.data.loading.caches import bytes_to_build, has_cache
from derain.data.prepared.manifest import Prepared
from derain.data.prepared.roles import open_test, open_training, open_validation
from derain.errors import DataError, DerainError, StorageError, UsageError
from derain.evaluation.scoring import sizes, too_small
from derain.pipelines.train.datasets import check_data, check_roles
from derain.storage.files import is_remote
from derain.storage.node import cache_folder
from derain.storage.refusals import expected
from derain.training import checkpoint
from derain.training.factory import build_network, without_pretrained
from derain.training.rehearsal import find_problems

log = logging.getLogger(__name__)


def caught(check: Callable[..., object], *arguments: object) -> Iterator[DerainError]:
    """The expected error that a check raises, if any."""
    try:
        check(*arguments)
    except Exception as error:
        found = expected(error)
        if found is None:
            raise
        yield found


def raise_first(problems: Iterable[DerainError]) -> None:
    """Raise the first problem; the checks after it are not made."""
    for problem in problems:
        raise problem


def check_before_start(configs: Sequence[Config]) -> None:
    """Raise a UsageError if a run could not begin, or not end; of several it names each.

    Runs that differ in nothing that matters here are checked once. Each problem is a line.
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
        except UsageError as error:
            problems.append((config.name, error))
        network = _what_shapes_depend_on(config)
        if network not in rehearsed:
            rehearsed.add(network)
            found = find_problems(config, checked[images])
            problems += [(config.name, error) for error in found]
    if len(problems) == 1 and len(configs) == 1:
        raise problems[0][1]
    if problems:
        named = (f"{name}: {error}" if len(configs) > 1 else str(error) for name, error in problems)
        raise type(problems[0][1])("\n".join(named))


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
    problems += [
        text
        for dataset in (*open_training(config.data), *measured)
        if (text := _incomplete(config, dataset))
    ]
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))
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


def _incomplete(config: Config, dataset: Prepared) -> str | None:
    """Which shard is missing or has another size than in the manifest, in one sentence.

    Their bytes are checked when they are decoded; with a cache they are not needed.
    """
    if is_remote(dataset.folder) or has_cache(dataset, config.data.cache_dir):
        return None
    for entry in dataset.manifest.shards:
        path = dataset.folder / entry.name
        found = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        if found != f"{entry.bytes} bytes":
            return (
                f"{path}: expected a shard of {entry.bytes} bytes, found {found}. Prepare the "
                "dataset again; `derainctl verify` lists all that is wrong with it."
            )
    return None


def check_space(configs: Sequence[Config]) -> None:
    """Raise StorageError if a disk has no room for the checkpoints of some runs, which train at the
    same time, and for the caches of their datasets on this machine."""
    needed: dict[Path, dict[str, int]] = defaultdict(dict)
    for folder, what, size in _needs_of(configs):
        place = existing(folder)
        same = next((p for p in needed if p.stat().st_dev == place.stat().st_dev), place)
        needed[same][what] = needed[same].get(what, 0) + size
    for place, parts in needed.items():
        free, total = shutil.disk_usage(place).free, sum(parts.values())
        if total > free:
            listed = " and ".join(
                f"{gib(size)} of {what}" for what, size in parts.items() if size > total / 100
            )
            raise StorageError(
                f"{place}: expected room for {listed}, found {gib(free)} free. Free some space "
                "there, put output_dir or data.cache_dir on another disk, or lower "
                "train.keep_checkpoints."
            )


def _needs_of(configs: Sequence[Config]) -> Iterator[tuple[Path, str, int]]:
    """What the runs will write: where, what, how many bytes."""
    for config in configs:
        yield config.folder, "checkpoints", checkpoints_bytes(config)
    yield cache_folder(configs[0].data.cache_dir), "caches", caches_bytes(configs)


def checkpoints_bytes(config: Config) -> int:
    """What the checkpoints of a run still take at most: those kept, the best one, and one that is
    being written; without those that it has."""
    train = config.train
    count = train.keep_checkpoints + 1 + bool(train.eval_every_steps)
    return max(0, count - len(checkpoint.steps(config.folder))) * checkpoint_bytes(config)


def checkpoint_bytes(config: Config) -> int:
    """The size of one checkpoint: weights, the optimiser's two moments, and the moving average if
    there is one; float32 each."""
    model = config.model.model_dump_json()
    copies = 3 if config.train.ema_decay is None else 4
    return copies * 4 * _trained(model, without_pretrained(config))


def _trained(model: str, config: Config) -> int:
    if model not in _TRAINED:
        _TRAINED[model] = trained_parameters(build_network(config))
    return _TRAINED[model]


_TRAINED: dict[str, int] = {}
"""The number of trained parameters by network, as a sweep has many trials of one."""


def trained_parameters(network: nn.Module) -> int:
    """The number of parameters that training changes."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def caches_bytes(configs: Sequence[Config]) -> int:
    """What the caches of all datasets take that are not on this machine yet."""
    sizes: dict[str, int] = {}
    for config in configs:
        data = config.data
        if not data.train:
            made = data.synthetic
            pairs = made.train_pairs + made.validation_pairs + made.test_pairs if made else 0
            sizes["synthetic"] = pairs * 2 * 3 * made.size_px**2 if made else 0
            continue
        for dataset in (*open_training(data), *open_validation(data), *open_test(data)):
            whole = dataset.whole or dataset
            digest = whole.manifest.sha256()
            if digest not in sizes:
                sizes[digest] = bytes_to_build(whole, data.cache_dir, data.cache_gib)
    return sum(sizes.values())


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    absolute = path.absolute()
    return next(parent for parent in (absolute, *absolute.parents) if parent.exists())


def gib(size: float) -> str:
    """Bytes in GiB, to two digits."""
    return f"{size / 2**30:.2f} GiB"


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
