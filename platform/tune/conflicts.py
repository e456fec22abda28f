"""Values of a sweep that cannot go together, found before anything starts."""

from collections.abc import Sequence

from derain.config import Config
from derain.data.prepared.roles import splits_training
from derain.errors import ConfigError

FIXED = {
    "train.num_workers": "every trial gets the same share of the cluster",
    "train.device": "every trial gets the same share of the cluster",
}
"""Keys that cannot differ between trials, and why."""
FIXED_BY_SEARCH = {
    "asha": {"train.steps": "it compares trials at the same steps, up to a common last one"},
    "pbt": {
        "train.steps": "its members train in step, up to a common last one",
        "train.checkpoint_every_steps": "it sets that to its interval",
        "train.keep_checkpoints": "it sets that itself",
    },
}


def check_conflicts(config: Config, trials: Sequence[Config]) -> None:
    """Raise ConfigError for keys that cannot vary, and for options of the sweep and of its trials
    that exclude each other."""
    assert config.sweep is not None
    search = config.sweep.search
    for key, reason in FIXED.items():
        _check_same(config, trials, key, f"sweep.space: `{key}` cannot vary: {reason}.")
    for key, reason in FIXED_BY_SEARCH.get(search, {}).items():
        refusal = f"sweep.space: `{key}` cannot vary with search: {search}: {reason}."
        _check_same(config, trials, key, refusal)
    _check_same_validation(config, trials)
    if search == "pbt":
        _check_same_optimizer(config, trials)
    for trial in (config, *trials):
        _check_share(config, trial)
        _check_micro_batches(config, trial)


def _check_same(config: Config, trials: Sequence[Config], key: str, refusal: str) -> None:
    assert config.sweep is not None
    field = key.removeprefix("train.")
    value = getattr(config.train, field)
    if key in config.sweep.space or any(getattr(t.train, field) != value for t in trials):
        raise ConfigError(f"{refusal} Give it one value in the config.")


def _check_same_optimizer(config: Config, trials: Sequence[Config]) -> None:
    """Members of a population take over the optimiser's state; its options may vary."""
    assert config.sweep is not None
    names = {trial.train.optimizer.name for trial in (config, *trials)}
    if len(names) > 1 or {"train.optimizer", "train.optimizer.name"} & config.sweep.space.keys():
        raise ConfigError(
            "sweep.space: `train.optimizer` cannot vary with search: pbt: its members take over "
            "the state of each other's optimiser. Give it one value in the config."
        )


def _check_same_validation(config: Config, trials: Sequence[Config]) -> None:
    """Trials are ranked on the same images: not on parts of different training datasets."""
    if not splits_training(config.data):
        return
    if any(trial.data.train != config.data.train for trial in trials):
        raise ConfigError(
            "sweep.space: `data.train` cannot vary without data.validation: each trial would be "
            "ranked on a part of its own training images. Give --set data.validation=PREPARED."
        )


def _check_share(config: Config, trial: Config) -> None:
    assert config.sweep is not None
    if config.sweep.gpu_fraction < 1 and trial.train.max_workers > 1:
        raise ConfigError(
            f"sweep.gpu_fraction={config.sweep.gpu_fraction:g} is for trials of one worker, found "
            f"train.num_workers={trial.train.num_workers}: the workers of a trial cannot share a "
            "GPU, as NCCL refuses that. Give --set sweep.gpu_fraction=1 or "
            "--set train.num_workers=1."
        )


def _check_micro_batches(config: Config, trial: Config) -> None:
    """A size that was measured with one member in the process is too large with two."""
    assert config.sweep is not None
    cohort = config.sweep.cohort
    if isinstance(cohort, int) and cohort > 1 and trial.train.micro_batch_size == "auto":
        raise ConfigError(
            f"sweep.cohort={cohort}: the trials of a cohort share the memory that "
            "train.micro_batch_size=auto would measure for the first of them. Give a number, or "
            "--set sweep.cohort=off."
        )
