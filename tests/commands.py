"""Commands in pages and scripts, read as `derainctl` reads them. Nothing runs."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer.main

from derain.cli.app import app
from derain.config import reference, shipped

FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = {"", "bash", "sh", "shell", "console"}
OF_A_LINE = {"|", "||", "&&", ";", "&"}
VARIABLE = re.compile(r"[A-Za-z_]\w*=.*")
PLACEHOLDERS = {"...", "VERB", "[OPTIONS]", "COMMAND", "[COMMAND]"}
PREFIXES = {"exec", "time", "nohup"}


def blocks(page: str) -> Iterator[str]:
    """The blocks of a page that are for a shell: fenced without a language of their own, and
    indented ones."""
    for language, block in FENCED.findall(page):
        if language in SHELL:
            yield block
    for block in re.findall(r"(?:^    .*\n)+", FENCED.sub("", page), re.MULTILINE):
        yield block


def commands(block: str) -> Iterator[list[str]]:
    """The words of each `derainctl` command of a block, without the name itself.

    Lines may continue, begin with a prompt, end in a comment, set variables, and hold several
    commands in a row or one within another, as in `ray job submit -- derainctl ...`.
    """
    variables: dict[str, str] = {}
    for line in block.replace("\\\n", " ").splitlines():
        line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), line.strip())
        if assigned := re.fullmatch(r'(\w+)="(.*)"', line):
            variables[assigned[1]] = assigned[2]
        if "derainctl" not in line:
            continue
        line = line.removeprefix("$ ")
        reader = shlex.shlex(line, posix=True, punctuation_chars=True)
        reader.whitespace_split = True
        reader.commenters = ""
        command: list[str] = []
        for word in [*without_comment(reader), ";"]:
            if word not in OF_A_LINE:
                command.append(word)
                continue
            if "derainctl" in command and is_called(command):
                given = command[command.index("derainctl") + 1 :]
                yield without_redirections(given)
            command = []


def without_comment(words: Iterator[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("#"):
            return
        yield word


def is_called(command: list[str]) -> bool:
    """Whether `derainctl` is what the command calls, and not a word that it prints or passes on."""
    before = command[: command.index("derainctl")]
    return all(VARIABLE.fullmatch(word) or word in PREFIXES for word in before) or (
        bool(before) and before[-1] == "--"
    )


def without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    left = iter(words)
    for word in left:
        if not re.fullmatch(r"[<>]+&?", word):
            kept.append(word)
            continue
        next(left, None)  # the file
        if kept and kept[-1] in ("1", "2"):  # as in 2> /dev/null
            kept.pop()
    return kept


def mentions(page: str) -> Iterator[list[str]]:
    """Commands within sentences, `derainctl VERB ...`, which need not be complete."""
    for text in re.findall(r"`(derainctl [^`]*)`", FENCED.sub("", page)):
        yield shlex.split(" ".join(text.replace("\\|", "|").split()))[1:]


@cache
def parser() -> Any:
    """derainctl without what its commands do."""
    root: Any = typer.main.get_command(app)
    silence(root)
    return root


def silence(command: Any) -> None:
    command.callback = lambda **_: None
    for below in getattr(command, "commands", {}).values():
        silence(below)


def refusal(words: list[str]) -> str:
    """What the parser says against a command; "" if it accepts it."""
    try:
        parser().main(words, prog_name="derainctl", standalone_mode=False)
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


@cache
def keys() -> frozenset[str]:
    return frozenset(key.name for key in reference.all_keys())


def wrong_keys(words: list[str]) -> list[str]:
    """Values of --set whose key no config and no network has."""
    prefix = "model." if words[:1] == ["import"] else ""
    values = [value for option, value in pairwise(words) if option == "--set"]
    given = [prefix + value.partition("=")[0] for value in values if value != "KEY=VALUE"]
    return [key for key in given if key not in keys()]


def missing_configs(words: list[str]) -> list[str]:
    named = [word for word in words if word.startswith("configs/")]
    return [word for word in named if not shipped.find(Path(word)).is_file()]
