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
from types import ModuleType
from weakref import WeakKeyDictionary

from derain.plugins.options import resolve_plugin

_packages_distributions = functools.cache(importlib.metadata.packages_distributions)
"""It reads the files of every installed package."""
_digests: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()
"""Of the files of modules that this process has imported, as they were then: a process that is kept
from trial to trial runs the code that it has imported, whatever the file holds by now."""


def identities(plugins: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The identity of each plug-in, given by config key; see `identity`."""
    return {key: identity(name) for key, name in plugins.items()}


def identity(name: str) -> dict[str, str]:
    """`name`, `sha256` of the source file, and `distribution` and `version` if it is of a package.

    `sha256` is "" for a class without a file, such as one of a notebook. Raises ConfigError if it
    cannot be imported.
    """
    defining = getattr(resolve_plugin(name, "plug-in"), "__module__", "")
    named, _, _ = name.partition(":")
    modules = [sys.modules[each] for each in (defining, named) if each in sys.modules]
    found = {"name": name, "sha256": next(filter(None, map(_digest, modules)), "")}
    top = named.partition(".")[0]
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


def _digest(module: ModuleType) -> str:
    """The sha256 of a module's file; "" if it has none."""
    if module not in _digests:
        file = Path(getattr(module, "__file__", None) or "")
        _digests[module] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    return _digests[module]
