"""A metric of the user's is tried before anything is scored, and its values are finite numbers."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from derain.errors import ConfigError, DataError
from derain.evaluation.own_metric import build_metric, check_metric, measured

SOURCE = """
import numpy as np

class MeanError:
    def __call__(self, derained, clean):
        return np.abs(derained.astype(int) - clean).mean()

class Sized(MeanError):
    def __init__(self, size): pass

class Map(MeanError):
    def __call__(self, derained, clean):
        return derained - clean

class NotANumber(MeanError):
    def __call__(self, derained, clean):
        return float("nan")

class Torn(MeanError):
    def __call__(self, derained, clean):
        raise KeyError("table")
"""


@pytest.fixture(autouse=True)
def _metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_metrics.py").write_text(SOURCE)
    yield
    sys.modules.pop("own_metrics", None)


def test_the_value_has_the_name_of_the_class() -> None:
    name = "own_metrics:MeanError"
    check_metric(name)
    dark, light = (np.full((4, 5, 3), level, np.uint8) for level in (10, 13))
    assert measured(build_metric(name), name, dark, light) == {"MeanError": 3.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Sized", "`--metric own_metrics:Sized.size` is missing"),
        (
            "Map",
            r"--metric: the metric own_metrics:Map: expected .* finite number; found a ndarray",
        ),
        ("NotANumber", "found nan"),
        ("Torn", "fails: KeyError: 'table'; expected"),
        ("Gone", "own_metrics:Gone cannot be imported"),
    ],
)
def test_anything_else_is_refused_before_scoring(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_metric(f"own_metrics:{name}")


def test_an_image_whose_value_is_no_number_is_left_out() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(DataError, match="found nan"):
        measured(build_metric("own_metrics:NotANumber"), "own_metrics:NotANumber", image, image)
