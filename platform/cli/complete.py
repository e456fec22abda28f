"""What Tab completes in a shell with `derainctl --install-completion`: names that are no paths.

Paths are the shell's own business: it completes them where nothing here fits.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import yaml


def datasets(incomplete: str) -> list[str]:
    """The catalogue's datasets."""
    from derain.data.sources.catalogue import CATALOGUE

    return _fitting(CATALOGUE, incomplete)


def configs(incomplete: str) -> list[str]:
    """The configs that ship with the package."""
    from derain.config import shipped

    return _fitting(shipped.names(), incomplete)


def profiles(incomplete: str) -> list[str]:
    """The profiles of the config on the command line, of which typer has parsed nothing yet."""
    from derain.config import shipped

    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    files = [shipped.find(Path(word)) for word in line.split()]
    trees = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    named = [tree.get("profiles", {}) for tree in trees if isinstance(tree, dict)]
    return _fitting((name for names in named for name in names), incomplete)


def keys(incomplete: str) -> list[str]:
    """The keys of a config, as `--set` takes them."""
    from derain.config.reference import all_keys

    return _fitting((f"{key.name}=" for key in all_keys() if key.kind != "section"), incomplete)


def networks(incomplete: str) -> list[str]:
    """The networks."""
    from derain.config.networks import ModelConfig

    sections = get_args(get_args(ModelConfig)[0])
    tags = (get_args(section)[1].tag for section in sections)
    return _fitting((tag for tag in tags if ":" not in tag), incomplete)


def formats(incomplete: str) -> list[str]:
    """The formats of `export`."""
    return _fitting(("onnx", "torch-export", "folder"), incomplete)


def protocols(incomplete: str) -> list[str]:
    """The protocols of PSNR and SSIM."""
    from derain.config import EvalConfig

    return _fitting(get_args(EvalConfig.model_fields["protocol"].annotation), incomplete)


def runs(incomplete: str) -> list[str]:
    """Runs and sweeps in ./runs, as `--resume` takes them."""
    return _fitting((path.parent.name for path in Path("runs").glob("*/config.yaml")), incomplete)


def models(incomplete: str) -> list[str]:
    """Registered versions by alias and number, once `models:/` is typed: MLflow takes seconds."""
    if not incomplete.startswith("models:/"):
        return _fitting(["models:/"], incomplete)
    from derain.tracking.registry import models

    names = []
    for version in models():
        names += [f"models:/{version.name}@{alias}" for alias in version.aliases]
        names.append(f"models:/{version.name}/{version.version}")
    return _fitting(names, incomplete)


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in set(names) if name.startswith(incomplete))
