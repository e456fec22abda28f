"""The config of a file, a run, a checkpoint or a model version."""

from pathlib import Path

from derain.config import Config, load_config
from derain.pipelines.named.checkpoint_of import checkpoint_of
from derain.tracking.run_files import run_text
from derain.training import checkpoint


def config_of(what: str) -> Config:
    """The resolved config of a config file or a shipped config, of the folder of a run, a sweep or
    a checkpoint (RUN/best and RUN/last, too), or of the MLflow run behind models:/NAME@ALIAS,
    models:/NAME/VERSION, runs:/ID.

    Raises ConfigError, UsageError or StorageError if there is none.
    """
    if what.startswith(("models:/", "runs:/")):
        return Config.from_yaml(run_text(what, checkpoint.CONFIG), what)
    folder = Path(what)
    if not (folder / checkpoint.CONFIG).is_file() and not folder.exists():
        folder = checkpoint_of(what) or folder  # RUN/best, RUN/last
    inside = folder / checkpoint.CONFIG
    return load_config(inside if inside.is_file() else folder)
