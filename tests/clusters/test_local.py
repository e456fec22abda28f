"""clusters/local: the script's words; tests/soak/soak_two_nodes.py uses it."""

import os
import re
import subprocess

import pytest

from tests.repository import ROOT

FOLDER = ROOT / "clusters/local"


@pytest.mark.skipif(os.geteuid() != 0, reason="says first that it needs root")
@pytest.mark.parametrize("words", [(), ("sever", "2"), ("cut",), ("exec", "1"), ("up", "2", "3")])
def test_other_words_are_refused_with_the_known_ones(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [FOLDER / "nodes.sh", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: nodes.sh up [COUNT] | down")


def test_the_readme_uses_every_word_and_names_every_variable() -> None:
    script, readme = ((FOLDER / name).read_text() for name in ("nodes.sh", "README.md"))
    usage = re.search(r"Usage: nodes.sh (.*)\"", script)
    assert usage
    for word in (part.split()[0] for part in usage[1].split(" | ")):
        assert f"clusters/local/nodes.sh {word}" in readme
    for name in re.findall(r"^([A-Z]+)=\$\{\1:-", script, re.M):
        assert f"| {name} |" in readme
