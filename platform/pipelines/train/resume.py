"""Which config a resumed run continues with, and what may differ from its beginning."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain.config import Config, load_config
from derain.config.flat import covers, flattened
from derain.data.prepared.roles import ROLES
from derain.errors import UsageError
from derain.pipelines.train.run_folder import UPLOADED, has_begun
from derain.training import checkpoint
from derain.training.checkpoint import Checkpoint
from derain.training.upload import Remote

log = logging.getLogger(__name__)

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
        "deterministic",
        "micro_batch_size",
        "ledger",
    }
)
"""Keys of `train` that may differ in a resumed run: how long, where and how closely watched it is.

Some of them do affect a step: `steps` stretches the schedules of the learning rate and of the loss;
`num_workers`, `micro_batch_size`, `compile` and `deterministic` change the noise that networks
draw, and rounding.
"""


def config_to_resume(config: Config, name: str, overrides: Mapping[str, Any]) -> Config:
    """The config that run `name` was started with, with this command's overrides on top.

    Fetches the run from `train.upload_to` if it has no checkpoint here. A run that has none there
    either begins with `config`: one command line serves a job that is started again and again.
    Raises UsageError if the run has lost its config.
    """
    folder = Path(config.output_dir) / name
    if not has_begun(folder) and config.train.upload_to is not None:
        Remote(config.train.upload_to, name, UPLOADED).fetch(folder)
    if not has_begun(folder):
        log.info("train: %s holds no checkpoint yet, so the run begins", folder)
        return config.replaced({"name": name}, "--resume")
    if not (folder / checkpoint.CONFIG).is_file():
        raise UsageError(
            f"{folder}: has checkpoints, but no {checkpoint.CONFIG}. Copy that of the newest one "
            "there."
        )
    saved = load_config(folder / checkpoint.CONFIG)
    _warn_of_ignored_changes(config, saved, overrides)
    return saved.replaced({**overrides, "name": name, "output_dir": config.output_dir}, "--set")


def _warn_of_ignored_changes(config: Config, saved: Config, overrides: Mapping[str, Any]) -> None:
    """Warn of values in the config file that differ from the run's own and are ignored."""
    skipped: tuple[str, ...] = ("name", "output_dir", "profile", "sweep", "register")
    if not config.data.train:  # the run has noted the datasets that were rendered for it
        skipped += tuple(f"data.{role}" for role in ROLES)
    now, then = flattened(config.model_dump(mode="json")), flattened(saved.model_dump(mode="json"))
    for key in sorted({*now, *then}):
        overridden = any(covers(name, key) for name in overrides)
        if now.get(key) != then.get(key) and not overridden and not key.startswith(skipped):
            log.warning(
                "%s: the run continues with %s; %s in the file is ignored. Change it with --set.",
                key, then.get(key), now.get(key),
            )  # fmt: skip


def check_same_training(saved: Checkpoint, config: Config) -> None:
    """Raise UsageError if the config differs from the run's in anything that decides a step."""
    then, now = _training_values(saved.config), _training_values(config)
    changed = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    if changed:
        raise UsageError(
            f"{config.folder}: cannot resume with another {', '.join(changed)}. "
            f"The run has {', '.join(f'{key}={then.get(key)}' for key in changed)}."
        )


def _training_values(config: Config) -> dict[str, Any]:
    """The values that decide what a step does; datasets are compared by their manifests."""
    tree = config.model_dump(mode="json")
    train = {key: value for key, value in tree["train"].items() if key not in MAY_CHANGE}
    parts = {"model": tree["model"], "loss": tree["loss"], "train": train}
    values = {f"{part}.{key}": value for part, keys in parts.items() for key, value in keys.items()}
    data_keys = ("mix", "shuffle", "stratify", "augment")
    values |= {f"data.{key}": tree["data"][key] for key in data_keys}
    values["eval.protocol"] = config.eval.protocol  # it decides the best step and patience
    return {**values, "seed": config.seed, "data.seed": config.data_seed}
