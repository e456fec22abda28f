"""Every command in the documentation is one that `derainctl` accepts: its name, options and values.

Nothing runs: the real parser reads each command, and its function is replaced.
"""

import shlex
from pathlib import Path

import pytest

from tests.commands import (
    PLACEHOLDERS,
    blocks,
    commands,
    mentions,
    missing_configs,
    parser,
    refusal,
    wrong_keys,
)
from tests.repository import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES.remove(ROOT / "docs" / "log.md")  # what it tells was tried with the commands of its day


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("derainctl ui   # the page\n", [["ui"]]),
        ("$ A=1 derainctl train a \\\n    --set x=[1,2]\n", [["train", "a", "--set", "x=[1,2]"]]),
        (". .venv/bin/activate; derainctl ui\n", [["ui"]]),
        ("derainctl models | head -1\n", [["models"]]),
        ("derainctl predict m - --out - < a.png > b.png\n", [["predict", "m", "-", "--out", "-"]]),
        ("ray job submit --working-dir . -- derainctl sweep ldfps\n", [["sweep", "ldfps"]]),
        ("derainctl predict m 'a/**/*.jpg' --set 'a={b: 1}' 2> /dev/null\n",
         [["predict", "m", "a/**/*.jpg", "--set", "a={b: 1}"]]),
        ("derainctl synthesize a && derainctl verify b\n", [["synthesize", "a"], ["verify", "b"]]),
        ('D="--set a=1"\nD="$D --set b=2"\nderainctl train c $D\n',
         [["train", "c", "--set", "a=1", "--set", "b=2"]]),
        ("Next: derainctl ui, or another\nwrote derainctl\n", []),
    ],
)  # fmt: skip
def test_commands_are_read(block: str, expected: list[list[str]]) -> None:
    assert list(commands(block)) == expected


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train"], "config"),
        (["train", "ldfps", "--profil", "demo"], "--profil"),
        (["runs", "shwo", "ldfps"], "shwo"),
        (["ui", "--port", "many"], "valid integer"),
        (["predict", "m", "a.png", "--out", "b", "--format", "gif"], "gif"),
    ],
)
def test_what_the_parser_refuses_is_found(words: list[str], named: str) -> None:
    assert named in refusal(words).lower()


def test_unknown_keys_and_configs_are_found() -> None:
    words = ["train", "configs/gone.yaml", "--set", "train.lr=1", "--set", "train.rl=1"]
    assert wrong_keys(words) == ["train.rl"]
    assert wrong_keys(["import", "a", "b", "--set", "width=8"]) == []
    assert missing_configs(words) == ["configs/gone.yaml"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_accepted(page: Path) -> None:
    for words in (words for block in blocks(page.read_text()) for words in commands(block)):
        line = shlex.join(["derainctl", *words])
        assert refusal(words) == "", line
        assert wrong_keys(words) == [], line
        assert missing_configs(words) == [], line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_named_in_sentences_exist_with_their_options(page: Path) -> None:
    for words in mentions(page.read_text()):
        command, line = parser(), shlex.join(["derainctl", *words])
        for word in words:
            if word.startswith("-"):
                known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
                assert word.partition("=")[0] in {*known, "-h", "--help", "--"}, line
            elif hasattr(command, "commands") and word not in PLACEHOLDERS:
                assert word in command.commands, line
                command = command.commands[word]
        assert wrong_keys(words) == [], line


def test_many_commands_are_documented() -> None:
    found = [
        words for page in PAGES for block in blocks(page.read_text()) for words in commands(block)
    ]
    assert len(found) > 80
    assert {words[0] for words in found} >= {"prepare", "train", "sweep", "evaluate", "predict"}
