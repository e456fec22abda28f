"""Patterns: what they match, what they fill in, which texts are refused."""

import pytest

from derain.data.sources.patterns import Pattern
from derain.errors import DataError


@pytest.mark.parametrize(
    ("text", "name", "fields"),
    [
        ("rain-{n:d}.png", "rain-001.png", {"n": "001"}),
        ("rain-{n:d}.png", "RAIN-7.PNG", {"n": "7"}),
        ("norain-{n:d}.png", "norain-7x2.png", None),
        ("norain-{n:d}.png", "norain-7.jpg", None),
        ("input/{name}", "input/a.b.JPEG", {"name": "a.b"}),
        ("input/{name}", "input/a.txt", None),
        ("input/{name}", "input/deep/a.png", None),
        ("{scene}_{rain:d}.jpg", "a_b_12.jpg", {"scene": "a_b", "rain": "12"}),
        ("{scene}_{rain}", "A_b_c.jpg", {"scene": "a_b", "rain": "c"}),
        ("a+(b)/{n:d}.png", "a+(b)/1.png", {"n": "1"}),
    ],
)
def test_a_pattern_reads_the_fields_of_a_name(
    text: str, name: str, fields: dict[str, str] | None
) -> None:
    assert Pattern(text).match(name) == fields


def test_filling_is_the_inverse_of_matching() -> None:
    pattern = Pattern("./{scene}/{camera}R-{n:d}.png")
    name = pattern.fill({"scene": "s", "camera": "c-", "n": "012"})
    assert name == "s/c-R-012.png"
    assert pattern.match(name) == {"scene": "s", "camera": "c-", "n": "012"}
    assert Pattern("in/{name}").fill({"name": "x"}, ".jpg") == "in/x.jpg"


@pytest.mark.parametrize("text", ["", "in/{}", "in/{a}{a}", "in/{a", "in/{n:x}", "in/{N}", "a}"])
def test_text_that_is_not_a_pattern_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not a pattern"):
        Pattern(text)
