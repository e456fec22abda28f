"""Starter configs: each loads with all of its profiles, and has the values of the shipped one."""

from pathlib import Path

import pytest

from derain.config import load_config, shipped
from derain.config.source import read
from derain.errors import OccupiedError, UsageError
from derain.pipelines.starter import write_starter

SEVEN = ("fclip_unet", "clip_rpn", "rdmc", "prenet", "nafnet", "restormer", "mprnet")


@pytest.mark.parametrize("name", shipped.names())
def test_a_starter_has_the_values_of_the_shipped_config(name: str, tmp_path: Path) -> None:
    path, *others = write_starter(name, tmp_path)
    assert {file.parent for file in (path, *others)} == {tmp_path}
    for profile in read(path).tree["profiles"]:
        assert load_config(path, profile=profile) == load_config(name, profile=profile)


def test_every_network_has_the_three_profiles(tmp_path: Path) -> None:
    for name in (*SEVEN, "my_network:Net"):
        path = write_starter(name, tmp_path / name.replace(":", "-"))[0]
        assert list(read(path).tree["profiles"]) == ["smoke", "demo", "paper"]
        network = load_config(path).model.name
        assert network == name
        assert load_config(path, profile="paper").train.device == "cuda"


def test_a_network_of_ones_own_starts_without_options(tmp_path: Path) -> None:
    path = write_starter("my_network:MyNet", tmp_path)[0]
    assert path.name == "mynet.yaml"
    config = load_config(path, profile="smoke")
    assert config.name == "mynet"
    assert config.register_ is not None
    assert config.register_.name == "mynet"
    assert config.model.model_dump() == {"name": "my_network:MyNet"}
    assert "NAFNet" not in path.read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = write_starter("ldfps", tmp_path)[0]
    write_starter("ldfps", tmp_path)  # the very same files
    path.write_text("name: mine\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OccupiedError, match="nothing was written"):
        write_starter("ldfps", tmp_path)
    assert path.read_text() == "name: mine\n"
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(UsageError, match="Give one of clip_rpn, dls"):
        write_starter("absent", tmp_path)
