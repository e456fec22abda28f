"""A resolved config with origins: the file, the line, the option, or the default."""

from pathlib import Path

from derain.config import Config, load_config
from derain.config.explain import differences, explained, with_origins

BASE = """name: base
model: {name: nafnet}
train:
  steps: 5
"""
OWN = """extends: base.yaml
train:
  lr: 1e-3
profiles:
  fast:
    train:
      steps: 2
"""


def test_each_value_names_its_origin(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    own = tmp_path / "own.yaml"
    own.write_text(OWN)
    config, origins = explained(own, profile="fast", overrides=["train.batch_size=2"])
    assert config == load_config(own, profile="fast", overrides=["train.batch_size=2"])
    assert origins["name"] == f"{tmp_path}/base.yaml:1"
    assert origins["model.name"] == f"{tmp_path}/base.yaml:2"
    assert origins["train.steps"] == f"{own}:7"
    assert origins["train.lr"] == f"{own}:3"
    assert origins["train.batch_size"] == "--set train.batch_size=2"
    assert origins["profile"] == "--profile fast"
    assert origins["train.crop_px"] == "default"
    assert origins["model.width"] == "default"


def test_the_text_reads_back_as_the_same_config() -> None:
    for name in ("ldfps", "dls", "paper/table6_encoders"):
        config, origins = explained(name)
        assert Config.from_yaml(with_origins(config, origins), "text") == config


def test_differences_are_by_key_and_a_missing_key_is_none() -> None:
    one, other = (
        load_config("fclip_unet", overrides=[f"train.lr={lr}"]).model_dump(mode="json")
        for lr in ("1e-3", "1e-4")
    )
    assert differences(one, other) == {"train.lr": (1e-3, 1e-4)}
    rdmc = load_config("rdmc", overrides=["model.recursions=4"]).model_dump(mode="json")
    assert differences(one, rdmc)["model.recursions"] == (None, 4)
    assert differences(one, one) == {}
