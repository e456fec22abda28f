"""The run that `train` has just finished -> a version, if its config has `register`."""

import logging
import shlex
from collections.abc import Mapping
from typing import Any

from derain.config import Config
from derain.errors import DerainError
from derain.models import is_user_defined
from derain.pipelines.register.verb import register
from derain.tracking import registry
from derain.tracking.registry import Registered

log = logging.getLogger(__name__)


def with_registration(config: Config, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a run that was just trained, registered if its config has `register`.

    Adds `registered` (`name`, `version`, `alias`) and `register_error`, at most one of them not
    null. A failure is a warning, as the run has its result whatever the registry does; weights of
    this run that are registered already, as those of a finished run that was resumed, stay one
    version.
    """
    if config.register_ is None:
        return {**result, "registered": None, "register_error": None}
    name, folder = config.register_.name, result["checkpoint"]
    try:
        done = _known(name, result) or register(folder, name, trust=True)  # trained by this command
    except Exception as error:  # MLflow and database drivers raise types of their own
        trust = ["--trust"] if is_user_defined(config.model.name) else []
        command = shlex.join(["derainctl", "register", folder, "--name", name, *trust])
        reason = " ".join(str(error).split()) or type(error).__name__
        log.warning(
            "train: %s has finished, but is not registered: %s Repeat that with `%s`.",
            config.name, reason, command,
            exc_info=None if isinstance(error, DerainError) else error,
        )  # fmt: skip
        why = f"{reason} Repeat it with `{command}`."
        return {**result, "registered": None, "register_error": why}
    registered = {"name": done.name, "version": done.version, "alias": done.alias}
    return {**result, "registered": registered, "register_error": None}


def _known(name: str, result: Mapping[str, Any]) -> Registered | None:
    """The version of a model that already has the weights of this run, if it was resumed."""
    if not result["resumed_from_step"]:
        return None
    for found in registry.models():
        same = found.tags.get("weights_sha256") == result["weights_sha256"]
        if found.name == name and same and found.run_id == result["mlflow_run_id"]:
            alias = found.aliases[0] if found.aliases else ""
            return Registered(name, found.version, alias, "It was registered before.")
    return None
