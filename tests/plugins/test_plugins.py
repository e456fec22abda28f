"""A plug-in is found, its options are checked, and its source is identified."""

import hashlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from derain.errors import ConfigError
from derain.plugins import protocols
from derain.plugins.identity import changed, identities, identity, identity_tags
from derain.plugins.options import build_plugin, check_options, takes
from derain.plugins.resolve import is_plugin, resolve

SOURCE = """
class Plain:
    pass

class Sized:
    def __init__(self, size: int, *, exact=False, **more):
        self.size = size

class Strict:
    def __init__(self, size: int = 3):
        if size < 0:
            raise ValueError("below 0")

constant = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plugged.py").write_text(SOURCE)
    yield tmp_path / "plugged.py"
    sys.modules.pop("plugged", None)


def build(name: str, options: dict[str, Any]) -> Any:
    return build_plugin(name, options, what="part", key="some.part")


def test_a_class_is_found_and_built(module: Path) -> None:
    assert is_plugin("plugged:Plain")
    assert not is_plugin("adamw")
    assert resolve("plugged:Plain").__module__ == module.stem
    assert build("plugged:Sized", {"size": 3, "other": 1}).size == 3


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere:Part", {}, "nowhere:Part cannot be imported.*No module named 'nowhere'"),
        ("plugged:Part", {}, "cannot be imported.*AttributeError.*PYTHONPATH, here and on every w"),
        ("plugged:constant", {}, "expected a class, found int"),
        ("plugged:Plain", {"size": 1}, r"`some\.part\.size`: plugged:Plain has no such option"),
        ("plugged:Strict", {"siz": 1}, "The nearest is `size`. Its options: size"),
        ("plugged:Sized", {}, r"`some\.part\.size` is missing; plugged:Sized needs it"),
        (
            "plugged:Sized",
            {"size": "3"},
            r"`some\.part\.size`: expected a valid integer, found '3'",
        ),
        ("plugged:Sized", {"size": 3, "exact": "no"}, "expected a valid boolean, found 'no'"),
        ("plugged:Strict", {"size": -1}, "cannot be built with {'size': -1}: ValueError: below 0"),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_is_wrong_is_said_in_one_message(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        build(name, options)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.usefixtures("module")
def test_what_the_platform_gives_is_no_option() -> None:
    found = resolve("plugged:Sized")
    check_options("plugged:Sized", found, {}, "some.part", given=("size",))
    assert takes(found, "size")
    assert not takes(found, "betas")


def test_the_identity_is_the_source_and_the_package(module: Path) -> None:
    digest = hashlib.sha256(module.read_bytes()).hexdigest()
    assert identity("plugged:Plain") == {"name": "plugged:Plain", "sha256": digest}
    of_torch = identity("torch.optim:SGD")
    assert of_torch["distribution"] == "torch"
    assert len(of_torch["sha256"]) == 64
    tags = identity_tags(
        identities({"some.part": "plugged:Plain", "train.optimizer": "torch.optim:SGD"})
    )
    assert tags["plugin.some.part"] == f"plugged:Plain sha256:{digest}"
    assert f"(torch {of_torch['version']})" in tags["plugin.train.optimizer"]


def test_the_digest_is_that_of_the_code_in_the_process(module: Path) -> None:
    before = identity("plugged:Plain")
    module.write_text(SOURCE + "\n")
    assert identity("plugged:Plain") == before
    del sys.modules["plugged"]
    assert identity("plugged:Plain")["sha256"] != before["sha256"]


def test_another_source_is_named_with_both_digests() -> None:
    before = {"a": {"name": "x:Y", "sha256": "1"}, "b": {"name": "x:Z", "sha256": "2"}}
    assert changed(before, before) is None
    assert changed({}, before) is None
    now = {**before, "a": {"name": "x:Y", "sha256": "3"}}
    text = changed(before, now)
    assert text is not None
    assert "a: x:Y had the sha256 1, it now has 3" in text
    assert "x:Z" not in text


def test_each_kind_says_what_it_gets_and_returns() -> None:
    named = [it for it in vars(protocols).values() if inspect.isclass(it)]
    own = [kind for kind in named if kind.__module__ == protocols.__name__]
    assert {kind.__name__ for kind in own} == {
        "LossTerm", "LossSchedule", "LearningRateSchedule", "Augmentation", "Metric",
        "DatasetLayout",
    }  # fmt: skip
    for kind in own:
        method = getattr(kind, "pairs", None) or kind.__dict__["__call__"]
        assert inspect.getdoc(kind)
        assert inspect.getdoc(method)
