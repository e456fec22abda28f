"""The typed, frozen config objects; no other folder reads YAML.

A config file is plain YAML: `extends:` names a file to start from, `profiles:` holds named
overrides, and `profile:` is the one that applies by default.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from derain.config.data import DataConfig
from derain.config.loss import LossConfig
from derain.config.networks import ModelConfig
from derain.config.scalars import Dumper
from derain.config.section import LocalFolder, Section, Seed
from derain.config.source import Source, parse_override, parsed, resolved
from derain.config.sweep import SweepConfig
from derain.config.training import TrainConfig


def _check_below(name: str) -> str:
    if {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"expected a folder below output_dir, without . or .., found {name}")
    return name


RunName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./=,-]*$"), AfterValidator(_check_below)
]


class EvalConfig(Section):
    """How derained images are scored."""

    protocol: Literal[
        "rain13k", "five_set", "prenet", "basicsr_y", "rgb_skimage", "rgb_toolbox", "hqrain"
    ] = "rain13k"
    """PSNR and SSIM as one group of papers computes them; see docs/reference/protocols.md."""


class RegisterConfig(Section):
    """Where the best run is registered."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The registered model, which gets a new version."""


class Config(Section):
    """One run, or one sweep of runs."""

    name: RunName
    """The run's name, and its folder below `output_dir`."""
    output_dir: LocalFolder = "runs"
    """The folder of all runs, on this machine or mounted."""
    seed: Seed = 0
    """Seed of initial weights, noise and, unless `data.seed` is set, of the batches."""
    profile: str | None = None
    """The profile that applies by default; in a resolved config, the one that applied."""
    model: ModelConfig
    data: DataConfig = DataConfig()
    train: TrainConfig
    loss: LossConfig = LossConfig()
    eval: EvalConfig = EvalConfig()
    sweep: SweepConfig | None = None
    register_: RegisterConfig | None = Field(None, alias="register")

    model_config = ConfigDict(serialize_by_alias=True)

    @model_validator(mode="after")
    def _protocol_has_the_metric(self) -> "Config":
        rgb = self.eval.protocol.startswith("rgb_")
        if self.sweep and self.sweep.metric.endswith("_rgb") != rgb:
            measured = "psnr_rgb or ssim_rgb" if rgb else "psnr_y or ssim_y"
            raise ValueError(
                f"sweep.metric: expected {measured}, which eval.protocol {self.eval.protocol} "
                f"measures, found {self.sweep.metric}"
            )
        if self.sweep and self.sweep.reference and rgb:
            raise ValueError(
                "sweep.reference: its values are those of Y, and eval.protocol "
                f"{self.eval.protocol} measures RGB; remove one of them"
            )
        return self

    @property
    def folder(self) -> Path:
        """The folder of this run or sweep."""
        return Path(self.output_dir) / self.name

    @property
    def plugins(self) -> dict[str, str]:
        """The plug-ins of a run, `module:Name`, by the keys that name them."""
        train, loss = self.train, self.loss
        named = {
            "model": self.model.name,
            "loss.schedule": loss.schedule.kind if loss.schedule else "",
            **{f"loss.terms.{number}": term.name for number, term in enumerate(loss.terms)},
            "train.optimizer": train.optimizer.name,
            "train.lr_schedule": train.lr_schedule.name,
            "data.augment": self.data.augment.name,
        }
        return {key: name for key, name in named.items() if ":" in name}

    @property
    def data_seed(self) -> int:
        """The seed of order, crops and flips."""
        return self.seed if self.data.seed is None else self.data.seed

    def digest(self) -> str:
        """SHA-256 of the resolved values, independent of the files they came from."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """The resolved config as YAML, which `load_config` reads back as an equal object."""
        tree = self.model_dump(mode="json")
        return yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str, name: str) -> "Config":
        """What `to_yaml` has written; `name` is for messages. Raises ConfigError."""
        return parsed(text, name).validated(cls, name)

    def replaced(self, values: Mapping[str, Any], origin: str) -> "Config":
        """This config with new values for dotted keys, checked like those of a file.

        Raises ConfigError, which names `origin`, for an invalid key or value.
        """
        source = Source(self.model_dump(mode="json"))
        for key, value in values.items():
            source.set(key, value, origin)
        return source.validated(Config, origin)


class _Network(Section):
    model: ModelConfig


def network_config(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The checked and completed options of a network, as `derain.models.build` takes them.

    Raises ConfigError for an unknown network, option or value.
    """
    source = Source({"model": {**options, "name": name}})
    return source.validated(_Network, f"network {name}").model.model_dump(exclude={"name"})


def load_config(
    path: str | Path, *, profile: str | None = None, overrides: Sequence[str] = ()
) -> Config:
    """The config of a file, with a profile and `KEY=VALUE` overrides applied.

    Raises ConfigError, which names file, line and key, what was expected and what was found.
    """
    return resolved(Path(path), profile, overrides).validated(Config, str(path))


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """The keys and values of `KEY=VALUE` texts, as `--set` takes them."""
    return dict(parse_override(text) for text in overrides)
