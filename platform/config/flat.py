"""A nested config as dotted keys: `{"train": {"lr": 1}}` -> `{"train.lr": 1}`."""

from collections.abc import Container, Mapping
from typing import Any


def flattened(
    tree: Mapping[str, Any], *, whole: Container[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """Dotted keys and their values. Empty mappings and the keys in `whole` are not flattened."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and key not in whole:
            flat |= flattened(value, whole=whole, prefix=f"{key}.")
        else:
            flat[key] = value
    return flat


def covers(name: str, key: str) -> bool:
    """Whether `key` is `name` or a key below it."""
    return key == name or key.startswith(f"{name}.")
