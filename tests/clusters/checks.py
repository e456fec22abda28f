"""What the tests of clusters/ share: files, schemas, copies with one wrong key."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

from tests.repository import ROOT

CLUSTERS = ROOT / "clusters"
SCHEMAS = Path(__file__).parent / "schemas"


def load(name: str) -> dict[str, Any]:
    """A YAML file of clusters/ with one document."""
    return yaml.safe_load((CLUSTERS / name).read_text(encoding="utf-8"))


@cache
def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def problems(value: object, schema: dict[str, Any]) -> list[str]:
    """What the schema refuses, with the place."""
    errors = Draft7Validator(schema).iter_errors(value)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


def at(tree: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def with_misspelt(tree: Any, path: tuple[str | int, ...]) -> Any:
    """A copy whose key at the path has one letter more."""
    copied = deepcopy(tree)
    parent, key = at(copied, path[:-1]), path[-1]
    parent[f"{key}x"] = parent.pop(key)
    return copied


def mappings(tree: Any) -> Iterator[dict[str, Any]]:
    """All mappings in a tree."""
    if isinstance(tree, dict):
        yield tree
    if isinstance(tree, dict | list):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from mappings(part)


def pin(package: str) -> str:
    """The version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (version,) = (line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
    return version
