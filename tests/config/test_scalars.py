"""Plain words in config files and --set: YAML 1.2's rules, and files that both versions read."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from derain.config import Config, load_config, parse_overrides
from derain.config.scalars import value_of

WORDS: dict[str, Any] = {
    **{word: word for word in ("off", "on", "yes", "no", "Off", "NO", "y", "n")},
    **{word: word for word in ("1:30", "2026-01-01", "1e", "e3", "1_", "0b1", ".", "v1.0")},
    "true": True,
    "FALSE": False,
    "null": None,
    "~": None,
    "": None,
    "1e-3": 1e-3,
    "1E5": 1e5,
    "-2e+2": -200.0,
    "1.": 1.0,
    ".5": 0.5,
    "1.5e-4": 1.5e-4,
    "012": 12,
    "-7": -7,
    "100_000": 100_000,
    "0x1f": 31,
    "0o17": 15,
    ".inf": math.inf,
    "-.INF": -math.inf,
}


@pytest.mark.parametrize("word", WORDS)
def test_words_are_those_of_yaml_1_2(word: str) -> None:
    found = value_of(word)
    assert (found, type(found)) == (WORDS[word], type(WORDS[word]))
    assert parse_overrides([f"key={word}"]) == {"key": WORDS[word]}
    assert parse_overrides([f"key=[{word or '~'}]"]) == {"key": [WORDS[word]]}


def test_quoted_words_are_texts() -> None:
    assert parse_overrides(["a='1e-3'", 'b="true"', "c=!!str 12"]) == {
        "a": "1e-3",
        "b": "true",
        "c": "12",
    }
    assert math.isnan(value_of(".nan"))


def tree(**values: Any) -> dict[str, Any]:
    return {"name": "words", "model": {"name": "prenet"}, "train": {"steps": 3}, **values}


def test_off_and_powers_of_ten_work_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(
        "name: off\n"
        "model: {name: 'own:Net', scale: 1e-3, act: off}\n"
        "train: {steps: 3, lr: 1e-3, compile: no}\n"
        "sweep: {cohort: off, space: {model.scale: {grid: [1e-3, 2e-3]}}}\n"
    )
    config = load_config(tmp_path / "words.yaml", overrides=["data.augment=flip"])
    assert config.name == "off"
    assert config.model.model_dump() == {"name": "own:Net", "scale": 1e-3, "act": "off"}
    assert config.train.compile is False
    assert config.sweep is not None
    assert (config.sweep.cohort, config.sweep.space["model.scale"].grid) == ("off", [1e-3, 2e-3])


@pytest.mark.parametrize("word", WORDS)
def test_a_text_is_written_so_that_both_versions_read_a_text(word: str, tmp_path: Path) -> None:
    config = Config.model_validate(tree(model={"name": "own:Net", "text": word}))
    text = config.to_yaml()
    (tmp_path / "written.yaml").write_text(text)
    assert load_config(tmp_path / "written.yaml") == config
    assert yaml.safe_load(text)["model"]["text"] == word


def test_lists_are_written_in_one_line_as_in_the_shipped_configs() -> None:
    config = Config.model_validate(tree(train={"steps": 3, "betas": [0.9, 0.99]}))
    assert "\n  betas: [0.9, 0.99]\n" in config.to_yaml()
