"""The typed, frozen config objects, and the only place where YAML enters.

A config file is plain YAML: `extends:` names a file to start from, `profiles:` holds named
overrides and `profile:` the one that applies when the command line names none.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, ConfigDict, Field

from derain.config.networks import ModelConfig
from derain.config.section import LocalFolder, Section, Seed
from derain.config.source import Source, keys_of, parse_override, read
from derain.config.sweep import SweepConfig
from derain.config.training import DataConfig, EvalConfig, LossConfig, TrainConfig


def _stays_below(name: str) -> str:
    if {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"expected a folder below output_dir, without . and .., found {name}")
    return name


RunName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./=,-]*$"), AfterValidator(_stays_below)
]


class RegisterConfig(Section):
    """Where the best run goes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")


class Config(Section):
    """One run, or one sweep of runs."""

    name: RunName
    """The run lives in <output_dir>/<name>."""
    output_dir: LocalFolder = "runs"
    seed: Seed = 0
    profile: str | None = None
    """The profile that applied."""
    model: ModelConfig
    data: DataConfig = DataConfig()
    train: TrainConfig
    loss: LossConfig = LossConfig()
    eval: EvalConfig = EvalConfig()
    sweep: SweepConfig | None = None
    register_: RegisterConfig | None = Field(None, alias="register")

    model_config = ConfigDict(serialize_by_alias=True)

    @property
    def folder(self) -> Path:
        """Where this run or sweep lives."""
        return Path(self.output_dir) / self.name

    @property
    def data_seed(self) -> int:
        """The seed of the batches."""
        return self.seed if self.data.seed is None else self.data.seed

    def digest(self) -> str:
        """sha256 of the resolved values, whatever file they came from."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The resolved config; `load_config` reads it back to an equal object."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def replaced(self, values: Mapping[str, Any], origin: str) -> "Config":
        """This config with dotted keys set to other values, checked like a file's.

        Raises ConfigError that names `origin` when a key or a value is not valid.
        """
        source = Source(self.model_dump(mode="json"))
        for key, value in values.items():
            source.set(key, value, origin)
        return source.validated(Config, origin)


class _Network(Section):
    model: ModelConfig


def network_config(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a network, those that are given checked; what `derain.models.build` takes.

    Raises ConfigError for an unknown network, option or value.
    """
    source = Source({"model": {**options, "name": name}})
    return source.validated(_Network, f"network {name}").model.model_dump(exclude={"name"})


def load_config(
    path: str | Path, *, profile: str | None = None, overrides: Sequence[str] = ()
) -> Config:
    """The config of a file, with a profile and `KEY=VALUE` overrides applied, checked as a whole.

    Raises ConfigError that names file, line, key, what was expected and what was found.
    """
    source = read(Path(path))
    source.choose(profile, str(path))
    for text in overrides:
        source.set(*parse_override(text), f"--set {text}")
    return source.validated(Config, str(path))


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as keys and values, as `--set` takes them."""
    return dict(parse_override(text) for text in overrides)


def valid_keys() -> list[str]:
    """Every dotted key that a config may have."""
    return keys_of(Config)
