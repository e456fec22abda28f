"""Which code a plug-in is: its distribution with version, and the digest of its source file.

It is recorded in checkpoints, in MLflow and at model versions. The digest is that of the one file
that defines the class; what this file imports is in it only through the version.
"""

import functools
import hashlib
import importlib.metadata
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derain.plugins.options import resolve_plugin

_packages_distributions = functools.cache(importlib.metadata.packages_distributions)
"""It reads the files of every installed package."""


def identities(plugins: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The identity of each plug-in, given by config key; see `identity`."""
    return {key: identity(name) for key, name in plugins.items()}


def identity(name: str) -> dict[str, str]:
    """`name`, `sha256` of the source file, and `distribution` and `version` if it is of a package.

    `sha256` is "" for a class without a file, such as one of a notebook. Raises ConfigError if it
    cannot be imported.
    """
    file = source_file(resolve_plugin(name, "plug-in"), name)
    digest = hashlib.sha256(file.read_bytes()).hexdigest() if file else ""
    top = name.partition(":")[0].partition(".")[0]
    found = {"name": name, "sha256": digest}
    for package in _packages_distributions().get(top, [])[:1]:
        found |= {"distribution": package, "version": importlib.metadata.version(package)}
    return found


def identity_text(identity: Mapping[str, str]) -> str:
    """An identity in one line, as MLflow's tags have it."""
    package = " ".join(identity[key] for key in ("distribution", "version") if key in identity)
    of = f" ({package})" if package else ""
    return f"{identity['name']}{of} sha256:{identity['sha256'] or 'none'}"


def identity_tags(identities: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Tags of an MLflow run or a model version: `plugin.` and the config key of each."""
    return {f"plugin.{key}": identity_text(found) for key, found in identities.items()}


def changed(
    before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> str | None:
    """What has changed in the source of plug-ins, in one message; None if nothing has."""
    found = [
        f"{key}: {then['name']} had the sha256 {then['sha256']}, it now has {now[key]['sha256']}"
        for key, then in before.items()
        if key in now and now[key]["sha256"] != then["sha256"]
    ]
    if not found:
        return None
    return (
        f"the source of a plug-in has changed since the checkpoint was written ({'; '.join(found)})"
        ". The run goes on with the new code, so it is not the run that it would have been."
    )


def source_file(found: Any, name: str) -> Path | None:
    """The file of the module that defines a class; that of the named module if it has none."""
    for module in (getattr(found, "__module__", ""), name.partition(":")[0]):
        file = getattr(sys.modules.get(module), "__file__", None)
        if file and Path(file).is_file():
            return Path(file)
    return None
