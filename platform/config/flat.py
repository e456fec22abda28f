"""A nested config as dotted keys: `{"train": {"lr": 1}}` -> `{"train.lr": 1}`."""

from collections.abc import Container, Mapping
from typing import Any


def flattened(
    tree: Mapping[str, Any], *, whole: Container[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """Dotted keys and their values; an empty mapping is a value, and so is what `whole` names."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and key not in whole:
            found |= flattened(value, whole=whole, prefix=f"{key}.")
        else:
            found[key] = value
    return found


def covers(name: str, key: str) -> bool:
    """Whether `key` is `name`, or below it."""
    return key == name or key.startswith(f"{name}.")
