"""`config`: keys, resolved configs, differences, schema; and what holds for every command."""

import json
from pathlib import Path

import pytest
import yaml

from derain.config import load_config
from tests.cli.conftest import Derainctl


def test_a_key_is_explained_with_those_below_it(derainctl: Derainctl) -> None:
    assert derainctl("config", "train.lr").stdout.startswith(
        "train.lr\n  number, more than 0; default"
    )
    below = json.loads(derainctl("config", "sweep.asha", "--json").stdout)["keys"]
    assert [key["name"] for key in below] == [
        "sweep.asha", "sweep.asha.first_steps", "sweep.asha.keep_one_in"
    ]  # fmt: skip
    everything = derainctl("config").stdout
    assert "data.validation" in everything
    assert "register.name" in everything


def test_a_config_is_resolved_with_origins(derainctl: Derainctl) -> None:
    shown = derainctl("config", "ldfps", "--profile", "smoke", "--set", "train.lr=0.5")
    assert "  lr: 0.5  # --set train.lr=0.5" in shown.stdout
    resolved = load_config("ldfps", profile="smoke", overrides=["train.lr=0.5"])
    assert yaml.safe_load(shown.stdout)["train"] == resolved.model_dump(mode="json")["train"]
    tree = json.loads(derainctl("config", "ldfps", "--json").stdout)
    assert tree["origins"]["name"].endswith("ldfps.yaml:7")


def test_two_configs_are_compared(derainctl: Derainctl, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    changed = load_config("fclip_unet", overrides=["train.lr=0.25", f"output_dir={tmp_path}/runs"])
    (folder / "config.yaml").write_text(changed.to_yaml())
    found = json.loads(derainctl("config", "diff", "fclip_unet", folder, "--json").stdout)
    assert found["changed"] == {"train.lr": {"a": 0.002, "b": 0.25}}
    assert derainctl("config", "diff", "ldfps", "ldfps").stdout == "no difference\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["config", "train.lrr"], "The nearest valid key is `train.lr`"),
        (["config", "absent.yaml"], "no such config file. Shipped configs need no path: clip_rpn"),
        (["config", "diff", "ldfps"], "compares two, found 1"),
        (["config", "ldfps", "rdmc"], "Expected one key or one config"),
    ],
)
def test_a_failure_is_one_message_and_with_json_one_document(
    derainctl: Derainctl, arguments: list[str], message: str
) -> None:
    failed = derainctl(*arguments, "--json")
    assert failed.returncode == 2
    assert message in failed.stderr
    error = json.loads(failed.stdout)["error"]
    assert message in error["message"]
    assert error["exit_code"] == 2
    assert error["kind"] in ("UsageError", "ConfigError")
    assert derainctl(*arguments).stdout == ""


def test_version_and_short_help(derainctl: Derainctl) -> None:
    assert derainctl("--version").stdout.startswith("derain-platform 0.")
    for arguments in (["-h"], ["config", "-h"], ["sweep", "-h"]):
        assert "Usage:" in derainctl(*arguments).stdout
