"""`models NAME VERSION` and `models compare A B`: what is known of versions, and what differs."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from derain.config.flat import flattened
from derain.errors import UsageError
from derain.evaluation.metric_names import psnr_name, ssim_name
from derain.tracking.lineage import Lineage, lineages, number
from derain.tracking.registry import named, pinned
from derain.tracking.run_files import run_text

CONFIG = "config.yaml"
SAME_IMAGES = ("evaluation_sha256", "protocol")
"""Tags that must be equal before two scores may be compared."""
TEST = "test_"
NOT_COMPARED = ("name", "output_dir")
"""Keys of a config that say where a run is, not what it is."""


def details(name: str, version: int | None) -> list[dict[str, Any]]:
    """All versions of a model, or one: aliases, metrics, datasets, tags, the newest first.

    Raises UsageError if there is none of that name or number.
    """
    found = [
        item
        for item in lineages()
        if item.version.name == name and version in (None, item.version.version)
    ]
    if not found:
        wanted = name if version is None else f"{name} version {version}"
        raise UsageError(f"{wanted}: not in the registry. `derainctl models` lists what is.")
    return [_described(item) for item in reversed(found)]


def compare(one: str, other: str) -> dict[str, Any]:
    """Two versions, NAME/VERSION or NAME@ALIAS, and where they differ.

    `config` has the two values of each key that differs, null if one version has no config;
    `metrics` those of validation if both were scored on the same images by the same protocol, else
    null, and `test` likewise.
    """
    both = [_version(model) for model in (one, other)]
    tags = [item["tags"] for item in both]
    configs = [_config(item) for item in both]
    known = all(config is not None for config in configs)
    return {
        "versions": both,
        "config": _differences(*(config or {} for config in configs)) if known else None,
        "metrics": _metrics(tags, "") if _equal(tags, SAME_IMAGES) else None,
        "test": _metrics(tags, TEST) if _equal(tags, ("test_sha256", "protocol")) else None,
        "data": _differences(*(item["datasets"] for item in both)),
    }


def _version(model: str) -> dict[str, Any]:
    address = pinned(model if model.startswith("models:/") else f"models:/{model}")
    name, _, version = named(address)
    return details(name, version)[0]


def _described(item: Lineage) -> dict[str, Any]:
    datasets: dict[str, str] = {}
    for recorded in item.datasets:
        text = f"{recorded.name} ({recorded.sha256[:12]})"
        datasets[recorded.role] = ", ".join(filter(None, [datasets.get(recorded.role), text]))
    return {**asdict(item.version), "datasets": datasets}


def _config(version: Mapping[str, Any]) -> dict[str, Any] | None:
    """The resolved config of a version's run, by dotted key; None if it has none."""
    if not version["tags"].get("config_sha256"):
        return None
    text = run_text(f"models:/{version['name']}/{version['version']}", CONFIG)
    try:
        flat = flattened(yaml.safe_load(text))
    except (yaml.YAMLError, AttributeError, RecursionError):
        return None
    return {key: value for key, value in flat.items() if key not in NOT_COMPARED}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, list[Any]]:
    keys = sorted({*one, *other})
    pairs = {key: [one.get(key), other.get(key)] for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _equal(tags: list[Mapping[str, str]], keys: tuple[str, ...]) -> bool:
    return all(tags[0].get(key) and tags[0].get(key) == tags[1].get(key) for key in keys)


def _metrics(tags: list[Mapping[str, str]], prefix: str) -> dict[str, list[float | None]]:
    plain = [key for key in tags[0] if key.startswith(("psnr_", "ssim_"))]
    names = (psnr_name(plain), ssim_name(plain))
    return {name: [number(each.get(f"{prefix}{name}")) for each in tags] for name in names}
