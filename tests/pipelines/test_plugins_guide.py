"""docs/guides/plugins.md: its examples train, resume, register, score and prepare; none is used
where a worker lacks it."""

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from derain.config import Config
from derain.data.sources.discover import find_pairs
from derain.errors import ConfigError, DataError
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.plugins_on_nodes import check_plugins_on_nodes
from derain.pipelines.prepare.options import PrepareOptions
from derain.pipelines.prepare.plan import make_plan
from derain.pipelines.prepare.verb import prepare
from derain.pipelines.register.verb import register
from derain.pipelines.train.recording import TrackingTarget
from derain.pipelines.train.run import run_in_this_process
from derain.pipelines.train.run_folder import IDENTITY, read_json
from derain.pipelines.train.verb import train
from derain.tracking import registry
from derain.training import checkpoint
from derain.training.process.distributed import Rank
from derain.training.rehearsal import rehearse
from tests.folders import write_pairs
from tests.repository import ROOT

PAGE = (ROOT / "docs/guides/plugins.md").read_text(encoding="utf-8")
KINDS = {
    "model": "Residual",
    "loss.schedule": "Halves",
    "loss.terms.0": "Edges",
    "train.optimizer": "SignMomentum",
    "train.lr_schedule": "Linear",
    "data.augment": "Gamma",
}
STEPS = 4


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The module of the page, which this process can import and Ray's workers cannot."""
    file = tmp_path / "python" / "own_parts.py"
    file.parent.mkdir()
    file.write_text("\n\n".join(blocks("python")))
    monkeypatch.syspath_prepend(file.parent)
    yield file
    sys.modules.pop("own_parts", None)


def config_of_the_page(tiny: dict[str, Any], folder: Path, name: str) -> Config:
    (chosen,) = (yaml.safe_load(text) for text in blocks("yaml"))
    merged = {part: {**tiny.get(part, {}), **values} for part, values in chosen.items()}
    merged["model"] = chosen["model"]
    merged["train"] |= {"steps": STEPS}
    return Config.model_validate({**tiny, **merged, "name": name, "output_dir": str(folder)})


def run(config: Config, store: str, until: int | None = None) -> checkpoint.Checkpoint:
    run_in_this_process(config, TrackingTarget(store), Rank(), until)
    saved = checkpoint.newest(config.folder)
    assert saved is not None
    return saved


def test_the_examples_train_resume_and_register_with_their_identity(
    tiny: dict[str, Any],
    rain_datasets: tuple[Path, Path],
    own_parts: Path,
    tmp_path: Path,
    store: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = config_of_the_page(tiny, tmp_path, "whole")
    assert config.plugins == {key: f"own_parts:{name}" for key, name in KINDS.items()}
    rehearse(config)
    whole = run(config, store)
    halves = config.replaced({"name": "halves", "data.loader_processes": 1}, "test")
    run(halves, store, until=2)
    own_parts.write_text(own_parts.read_text() + "\n# another digest\n")
    del sys.modules["own_parts"]  # another process
    caplog.set_level(logging.WARNING, logger="derain")
    resumed = run(halves, store)
    assert resumed.state.step == whole.state.step == STEPS
    assert resumed.weights_sha256() == whole.weights_sha256()
    digests = [saved.state.plugins["loss.terms.0"]["sha256"] for saved in (whole, resumed)]
    assert len(set(digests)) == 2
    warnings = [text for text in caplog.messages if "source of a plug-in has changed" in text]
    assert len(warnings) == 1
    assert all(digest in warnings[0] for digest in digests)

    run_id = read_json(config.folder / IDENTITY)["run_id"]
    tags = MlflowClient(store).get_run(run_id).data.tags
    made = register(whole.folder, "own", trust=True)
    (version,) = [found for found in registry.models() if found.name == "own"]
    assert made.version == version.version
    for key, name in KINDS.items():
        text = f"own_parts:{name} sha256:{digests[0]}"
        assert tags[f"derain.plugin.{key}"] == version.tags[f"plugin.{key}"] == text

    metric = "own_parts:MeanError"
    held_out = str(rain_datasets[1])
    (scored,) = evaluate(
        str(whole.folder), [held_out], metrics=[metric], trust=True, workers=1, out=tmp_path / "out"
    )["datasets"]
    found = scored["by_protocol"][metric]
    assert found["metrics"]["MeanError"] > 0
    assert found["input"]["MeanError"] > 0
    assert re.fullmatch(rf"{metric} sha256:\w{{64}}", found["identity"])


def test_each_example_alone_is_accepted(
    tiny: dict[str, Any], own_parts: Path, tmp_path: Path
) -> None:
    assert own_parts.is_file()
    whole = config_of_the_page(tiny, tmp_path, "alone").model_dump(mode="json")
    base = Config.model_validate({**tiny, "output_dir": str(tmp_path)})
    for key in ("loss.terms", "train.optimizer", "train.lr_schedule", "data.augment"):
        section, name = key.split(".")
        config = base.replaced({key: whole[section][name]}, "test")
        assert len(config.plugins) == 1
        rehearse(config)


def test_a_layout_finds_the_pairs(own_parts: Path, tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "source", 4, width=40, height=32)
    files = sorted(source.rglob("*.png"))
    for number, file in enumerate(files):
        file.rename(source / f"{number:03d}.png")
    name = "own_parts:Interleaved"
    plan, _ = make_plan(name, source, tmp_path / "out", PrepareOptions())
    assert (plan.pairs, plan.split, plan.dataset) == (2, "train", "interleaved")
    plugin = plan.settings["row"]["plugin"]
    assert (plugin["name"], len(plugin["sha256"])) == (name, 64)
    test = find_pairs(name, source, "test")
    assert [(pair.rain, pair.clean) for pair in test.pairs] == [
        ("002.png", "003.png"), ("006.png", "007.png")
    ]  # fmt: skip
    assert not test.unrecognised
    with pytest.raises(DataError, match="no such split 'val'; it has train, test"):
        find_pairs(name, source, "val")
    text = own_parts.read_text().replace("names[at : at + 2]", "(names[at], 'gone.png')")
    own_parts.write_text(text + "\n")
    sys.modules.pop("own_parts")
    with pytest.raises(DataError, match=r"own_parts:Interleaved: names gone\.png, which is no im"):
        find_pairs(name, source)


@pytest.mark.usefixtures("ray_cluster")
def test_what_a_worker_lacks_is_refused_with_one_message(
    tiny: dict[str, Any],
    rain_datasets: tuple[Path, Path],
    own_parts: Path,
    tmp_path: Path,
    store: str,
    trained: Any,
) -> None:
    """Ray's workers were started before the module existed; only this process can import it."""
    assert own_parts.is_file()
    assert store
    names = {f"own_parts:{name}": key for key, name in KINDS.items()}
    for name, key in names.items():
        with pytest.raises(ConfigError, match=rf"`{key}`: the node .* lacks a plug-in.*{name} "):
            check_plugins_on_nodes({name: key})
    with pytest.raises(ConfigError, match=r"the node .* lacks a plug-in") as raised:
        train(config_of_the_page(tiny, tmp_path, "lacking"))
    assert raised.value.exit_code == 2
    assert str(raised.value).count("cannot be imported") == 1
    metrics = ["own_parts:MeanError"]
    with pytest.raises(ConfigError, match=r"`--metric`: the node .* lacks a plug-in"):
        evaluate(trained.result["checkpoint"], [str(rain_datasets[1])], metrics=metrics, workers=2)
    source = write_pairs(tmp_path / "source", 2, width=40, height=32)
    with pytest.raises(ConfigError, match="own_parts:Interleaved cannot be impo"):
        prepare("own_parts:Interleaved", source, tmp_path / "out")


def test_another_source_on_a_worker_is_refused(
    own_parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from derain.pipelines import plugins_on_nodes

    assert own_parts.is_file()
    found = {"10.0.0.2": {"own_parts:Edges": ("0" * 64, "")}}
    monkeypatch.setattr(plugins_on_nodes.cluster, "on_every_node", lambda *_: found)
    with pytest.raises(ConfigError, match=r"10\.0\.0\.2 has another source of own_parts:Edges"):
        check_plugins_on_nodes({"own_parts:Edges": "loss.terms.0"})
