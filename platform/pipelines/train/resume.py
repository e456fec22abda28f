"""What a run may begin or go on with: its folder, its config, what may have changed since."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain.config import Config, load_config
from derain.config.flat import covers, flattened
from derain.errors import OccupiedError, UsageError
from derain.pipelines.train.run import BESIDE, RESULT
from derain.storage.files import located
from derain.storage.output_paths import check_folder
from derain.training import checkpoint
from derain.training.checkpoint import Checkpoint
from derain.training.upload import Remote

log = logging.getLogger(__name__)

LOCKS = (checkpoint.LOCK, checkpoint.COMMAND_LOCK)
"""What a command leaves in a run's folder that ended before it began to train."""
MAY_CHANGE = frozenset(
    {
        "steps",
        "num_workers",
        "max_failures",
        "hang_timeout_s",
        "upload_to",
        "device",
        "cpu_threads",
        "log_every_steps",
        "eval_every_steps",
        "patience_evals",
        "use_checkpoint",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "on_nonfinite",
        "max_rollbacks",
        "spike_factor",
        "parallel",
        "compile",
        "micro_batch_size",
        "ledger",
    }
)
"""Keys of `train` that a resumed run may have otherwise: how long, where and how it is watched.

Some of them move what a step does: `steps` stretches the schedules of the rate and of the loss;
`num_workers`, `micro_batch_size` and `compile` change the noise that networks draw, and rounding.
"""


def claim(config: Config) -> None:
    """Make the folder of a new run or sweep ours, and its place at `train.upload_to`.

    Raises OccupiedError that says what is there and what to do.
    """
    folder, name = config.folder, config.name
    check_folder(folder)
    if (folder / RESULT).is_file():
        raise OccupiedError(
            f"{folder}: holds a finished run. Give another --set name=..., or train it on "
            f"with --resume {name} --set train.steps=..."
        )
    if (folder / checkpoint.CONFIG).is_file():
        raise OccupiedError(
            f"{folder}: holds an unfinished run. Continue it with --resume {name}, "
            "or give another --set name=..."
        )
    if folder.is_dir() and any(path.name not in LOCKS for path in folder.iterdir()):
        raise OccupiedError(f"{folder}: not empty. Give another --set name=... or output_dir.")
    if config.train.upload_to is not None:
        _check_nothing_is_at(located(config.train.upload_to) / name, name)
    folder.mkdir(parents=True, exist_ok=True)


def _check_nothing_is_at(remote: Path, name: str) -> None:
    """Two runs in one place could not be told apart once the folder of one is lost."""
    if remote.is_dir() and any(remote.iterdir()):
        raise OccupiedError(
            f"{remote}: train.upload_to holds a run of this name already. Continue that one with "
            f"--resume {name}, or give another --set name=... or train.upload_to."
        )


def config_to_resume(config: Config, name: str, overrides: Mapping[str, Any]) -> Config:
    """The config that run `name` was started with, with this command's overrides on top."""
    folder = Path(config.output_dir) / name
    if not (folder / checkpoint.CONFIG).is_file() and config.train.upload_to is not None:
        Remote(config.train.upload_to, name, BESIDE).fetch(folder)
    if not (folder / checkpoint.CONFIG).is_file():
        raise UsageError(f"{folder}: there is no run to resume (no {checkpoint.CONFIG}).")
    saved = load_config(folder / checkpoint.CONFIG)
    _say_what_the_file_changes(config, saved, overrides)
    return saved.replaced({**overrides, "name": name, "output_dir": config.output_dir}, "--set")


def _say_what_the_file_changes(config: Config, saved: Config, given: Mapping[str, Any]) -> None:
    """A run goes on with the config that it began with; what the file says now is not that."""
    own: tuple[str, ...] = ("name", "output_dir", "profile", "sweep", "register")
    if not config.data.train:  # the run noted the datasets that were made for it
        own += ("data.train", "data.eval")
    now, then = flattened(config.model_dump(mode="json")), flattened(saved.model_dump(mode="json"))
    for key in sorted({*now, *then}):
        mine = not key.startswith(own) and not any(covers(name, key) for name in given)
        if mine and now.get(key) != then.get(key):
            log.warning(
                "%s: the run goes on with %s; the file's %s does not count. Give it with --set.",
                key, then.get(key), now.get(key),
            )  # fmt: skip


def check_same_training(saved: Checkpoint, config: Config) -> None:
    """Raise UsageError where the config would train something else than the run did."""
    then, now = _what_is_trained(saved.config), _what_is_trained(config)
    changed = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    if changed:
        raise UsageError(
            f"{config.folder}: cannot resume with another {', '.join(changed)}. "
            f"The run has {', '.join(f'{key}={then.get(key)}' for key in changed)}."
        )


def _what_is_trained(config: Config) -> dict[str, Any]:
    """The values that decide what a step does; the datasets are compared by their manifests."""
    tree = config.model_dump(mode="json")
    train = {key: value for key, value in tree["train"].items() if key not in MAY_CHANGE}
    parts = {"model": tree["model"], "loss": tree["loss"], "train": train}
    values = {f"{part}.{key}": value for part, keys in parts.items() for key, value in keys.items()}
    kept = ("mix", "shuffle", "stratify", "augment")
    values |= {f"data.{key}": tree["data"][key] for key in kept}
    values["eval.protocol"] = config.eval.protocol  # the best step and patience go by its figures
    return {**values, "seed": config.seed, "data.seed": config.data_seed}
