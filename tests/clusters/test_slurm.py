"""clusters/slurm without a controller, which tests/soak/soak_slurm.py has."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.clusters.checks import CLUSTERS
from tests.commands import blocks, commands, missing_configs, refusal, wrong_keys

FOLDER = CLUSTERS / "slurm"
FILES = sorted(FOLDER.glob("*.sbatch"))
OPTIONS = {
    "nodes": r"[1-9]\d*",
    "ntasks": "1",
    "ntasks-per-node": "1",
    "cpus-per-task": r"[1-9]\d*",
    "gpus-per-node": r"[1-9]\d*",
    "time": r"(\d+-)?\d\d:\d\d:\d\d",
    "output": "%x-%j.log",
    "open-mode": "append",
    "requeue": "",
    "signal": "B:TERM@120",
}
"""Those of `sbatch` that these files use, with the values that may stand there."""
REQUIRED = {"requeue": "", "open-mode": "append", "signal": "B:TERM@120"}


def options(text: str) -> dict[str, str]:
    """The lines #SBATCH that Slurm reads: those before the first command."""
    head = re.split(r"^(?!#|$)", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = re.findall(r"^#SBATCH --(\S+)$", head, re.MULTILINE)
    assert len(lines) == text.count("#SBATCH")
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def wrong(text: str) -> list[str]:
    return [
        f"{name}={value}"
        for name, value in options(text).items()
        if name not in OPTIONS or not re.fullmatch(OPTIONS[name], value)
    ]


def by_name(path: Path) -> str:
    return path.name


def test_these_are_the_files() -> None:
    assert list(map(by_name, FILES)) == ["sweep.sbatch", "sweep_nodes.sbatch", "train.sbatch"]


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_bash_reads_the_file(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/bin/bash\n")
    assert "\nset -euo pipefail\n" in text
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_options_are_slurms_and_a_requeued_job_goes_on(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not wrong(text)
    assert REQUIRED.items() <= options(text).items()
    assert text.count(' --resume "$name" ') == 1
    if path.name != "sweep_nodes.sbatch":  # there the script itself passes the signal on
        assert text.splitlines()[-1].startswith("exec derainctl ")


@pytest.mark.parametrize("line", ["signal=TERM@120", "signal=B:TERM", "opn-mode=append", "time=9"])
def test_a_wrong_option_is_found(line: str) -> None:
    assert wrong(f"#!/bin/bash\n#SBATCH --{line}\nset -e\n") == [line]


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_derainctl_accepts_the_command(path: Path) -> None:
    (words,) = commands(path.read_text(encoding="utf-8").replace(' "$@"', ""))
    assert refusal(words) == "", shlex.join(words)
    assert words[1:] == ["$1", "--resume", "$2"]


def test_the_commands_of_the_readme_are_accepted() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    submitted = []
    for block in blocks(page):
        for words in commands(block):
            assert refusal(words) == "", shlex.join(words)
        for line in re.findall(r"^sbatch .*$", block.replace("\\\n", " "), re.MULTILINE):
            submitted.append(as_derainctl(shlex.split(line)))
    assert {words[0] for words in submitted} == {"train", "sweep"}
    for words in submitted:
        assert refusal(words) == "", shlex.join(words)
        assert not wrong_keys(words)
        assert not missing_configs(words)


def as_derainctl(words: list[str]) -> list[str]:
    """The command that a job of `sbatch [OPTION...] FILE CONFIG NAME [OPTION...]` runs."""
    at = next(number for number, word in enumerate(words) if word.endswith(".sbatch"))
    assert all(word.startswith("--") for word in words[1:at])
    file, config, name, *rest = words[at:]
    path = CLUSTERS.parent / file
    assert path in FILES
    verb = path.name.partition(".")[0].partition("_")[0]
    return [verb, config, "--resume", name, *rest]


def test_rays_processes_outlast_sigterm_and_ask_for_a_token() -> None:
    text = (FOLDER / "sweep_nodes.sbatch").read_text(encoding="utf-8")
    (line,) = re.findall(r".*ray start.*", text)
    assert "env --block-signal=TERM --block-signal=HUP ray start --block" in line
    assert text.index("export RAY_AUTH_MODE=token RAY_AUTH_TOKEN") < text.index(line)
    assert "ray stop" not in text  # it would end every Ray of this user on the node
