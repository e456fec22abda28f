"""The file of a user's own datasets: what it may say, and how a mistake in it is named."""

from pathlib import Path

import pytest

from derain.config.layouts import read_own_datasets
from derain.errors import ConfigError

ROW = "name: a\nsplits: {day: }\nlayouts: [{split: day, rain: 'in/{n}', clean: 'gt/{n}'}]\n"


def test_one_value_may_stand_for_a_list(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(ROW)
    (row,) = read_own_datasets(tmp_path / "mine.yaml")
    assert row.splits == {"day": ()}
    assert row.layouts[0].clean == ("gt/{n}",)
    assert (row.title, row.terms) == ("", "yours")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected keys and values, found nothing"),
        ("- name: a", "expected keys and values"),
        ("datasets: []", "`datasets`"),
        (ROW + "name: b", r"mine\.yaml:4: `name` is given twice"),
        (ROW.replace("day: }", "night: }"), "expected a layout for each of the splits night"),
        (ROW.replace("clean:", "clean_half: left, clean:"), "either clean or clean_half"),
    ],
)
def test_a_mistake_is_named(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read_own_datasets(tmp_path / "mine.yaml")
