"""Whether every node of the cluster has the plug-ins of a run, from the same source as here."""

from collections.abc import Mapping, Sequence

from derain import cluster
from derain.errors import ConfigError
from derain.plugins.identity import identity


def check_plugins_on_nodes(keys: Mapping[str, str]) -> None:
    """Raise ConfigError if a node cannot import a plug-in, or has another source file of it.

    `keys` has the config key or option of each plug-in, by `module:Name`. A worker would fail in
    its first step, or train with code that no checkpoint records.
    """
    if not keys:
        return
    expected = {name: identity(name)["sha256"] for name in keys}
    for node, found in cluster.on_every_node(_digests, list(keys)).items():
        for name, (digest, problem) in found.items():
            if problem:
                raise ConfigError(f"`{keys[name]}`: the node {node} lacks a plug-in. {problem}")
            if digest != expected[name]:
                raise ConfigError(
                    f"`{keys[name]}`: the node {node} has another source of {name}: expected the "
                    f"sha256 {expected[name]}, found {digest}. Install the same version there."
                )


def _digests(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """On a node: the digest of each plug-in's source file, or why it cannot be imported."""
    found = {}
    for name in names:
        try:
            found[name] = identity(name)["sha256"], ""
        except ConfigError as error:
            found[name] = "", str(error)
    return found
