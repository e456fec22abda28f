"""The reference of all keys is that of the sections: page, schema and texts."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from derain.config import Config, load_config, reference, shipped
from derain.config.flat import flattened
from tests.repository import ROOT


def test_every_key_of_a_resolved_config_is_explained() -> None:
    explained = {key.name for key in reference.all_keys()}
    for name in shipped.names():
        tree = load_config(name).model_dump(mode="json", exclude={"sweep"})
        for key in flattened(tree):
            assert key in explained or key.split(".")[0] == "sweep", key


def test_every_key_says_what_it_means() -> None:
    silent = [key.name for key in reference.all_keys() if not key.meaning and key.kind != "section"]
    assert silent == []


def test_a_key_of_several_networks_is_one_entry_per_meaning() -> None:
    widths = [key for key in reference.all_keys() if key.name == "model.width"]
    assert {network for key in widths for network in key.networks} == {
        "prenet", "nafnet", "restormer", "mprnet"
    }  # fmt: skip
    (name,) = (key for key in reference.all_keys() if key.name == "model.name")
    assert name.kind.endswith("| module:Class")
    (lr,) = (key for key in reference.all_keys() if key.name == "train.lr")
    assert (lr.kind, lr.default) == ("number, more than 0", "0.0003")


def test_page_and_schema_in_the_repository_are_up_to_date() -> None:
    assert (ROOT / "docs/reference/config.md").read_text() == reference.markdown()
    written = json.loads((ROOT / "configs/schema.json").read_text())
    assert written == reference.file_schema()


def test_the_schema_accepts_every_shipped_file_and_refuses_other_keys() -> None:
    check = jsonschema.Draft202012Validator(reference.file_schema())
    files = [*shipped.folder().rglob("*.yaml")]
    assert len(files) > 10
    for file in files:
        check.validate(yaml.safe_load(file.read_text()))
        line = file.read_text().splitlines()[0]
        assert line.startswith("# yaml-language-server: $schema=")
        assert (file.parent / line.partition("$schema=")[2]).samefile(ROOT / "configs/schema.json")
    check.validate({"data": {"train": "one"}, "profiles": {"demo": {"train": {"steps": 3}}}})
    for wrong in (
        {"trian": {}},
        {"train": {"step": 1}},
        {"profiles": {"demo": {"train": {"lr": "fast"}}}},
        {"model": {"name": "restormer", "widht": 3}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            check.validate(wrong)


def test_a_key_as_text() -> None:
    (key,) = (key for key in reference.all_keys() if key.name == "train.hang_timeout_s")
    assert reference.text(key).splitlines()[:2] == [
        "train.hang_timeout_s", "  number, more than 0, in s; default 1800.0"
    ]  # fmt: skip
    assert "`train.lr`" in reference.nearest("train.lrr")


def test_shipped_configs_need_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_config("paper/table9_losses"), Config)
    assert load_config("ldfps") == load_config("ldfps.yaml") == load_config("configs/ldfps.yaml")
    (tmp_path / "ldfps.yaml").write_text((ROOT / "configs/fclip_unet.yaml").read_text())
    assert load_config("ldfps.yaml").name == "fclip-unet"  # a file comes first
