"""A resolved config with the origin of each value, and the difference of two configs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from derain.config import Config
from derain.config.flat import flattened
from derain.config.scalars import Dumper
from derain.config.source import Source, resolved

DEFAULT = "default"


def explained(
    path: str | Path, *, profile: str | None = None, overrides: Sequence[str] = ()
) -> tuple[Config, dict[str, str]]:
    """The config of a file, and by dotted key where its value comes from.

    An origin is FILE:LINE, `--set KEY=VALUE`, `--profile NAME` or "default". Raises what
    `load_config` raises.
    """
    source = resolved(Path(path), profile, overrides)
    config = source.validated(Config, str(path))
    keys = flattened(config.model_dump(mode="json"), whole=("sweep.space",))
    return config, {key: _origin(source, key) for key in keys}


def with_origins(config: Config, origins: Mapping[str, str]) -> str:
    """The resolved config as YAML, the origin of each value as a comment; it reads back equal."""
    return "\n".join(_lines(config.model_dump(mode="json"), "", origins)) + "\n"


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ in two config trees, with both; None for a missing key."""
    left, right = (flattened(tree, whole=("sweep.space",)) for tree in (one, other))
    return {
        key: (left.get(key), right.get(key))
        for key in dict.fromkeys((*left, *right))
        if left.get(key) != right.get(key)
    }


def _origin(source: Source, key: str) -> str:
    path = tuple(key.split("."))
    tree: Any = source.tree
    for part in path:
        if not isinstance(tree, dict) or part not in tree:
            return DEFAULT
        tree = tree[part]
    return source.origin(path, DEFAULT)


def _lines(tree: Mapping[str, Any], prefix: str, origins: Mapping[str, str]) -> list[str]:
    indent = "  " * prefix.count(".")
    lines = []
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in origins:
            lines.append(f"{indent}{name}: {_flow(value)}  # {origins[key]}")
        else:
            lines += [f"{indent}{name}:", *_lines(value, f"{key}.", origins)]
    return lines


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.dump(
        value,
        Dumper=Dumper,
        default_flow_style=True,
        width=float("inf"),
        allow_unicode=True,
        sort_keys=False,
    )
    return text.removesuffix("\n").removesuffix("\n...")
