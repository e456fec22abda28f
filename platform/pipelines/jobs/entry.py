"""On the cluster, runs the command of a job, in the folder of `submit` if that is there.

Python's standard library only: it runs before anything else of the job.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

RESULT = b"\x1e"
"""Begins each line of the job's log that the command wrote to stdout; Ray has one log for both."""
CARRIED = "{job}/"
"""Begins a word of the command that is a file which the job carries."""
STARTED = "job: running in "
"""The first line of the command's log."""


def words_for(
    command: Sequence[str], *, mark: str, variables: Sequence[str], module: str = __name__
) -> list[str]:
    """The words that run a command of derainctl by this module: the entry point of a job.

    `mark` is a new file in the folder that the job should run in; `variables` are NAME=VALUE.
    """
    return ["python", "-P", "-m", module, mark, str(len(variables)), *variables, *command]


def main(words: Sequence[str]) -> NoReturn:
    """Run the command; ends with its exit code."""
    mark, count = Path(words[0]), int(words[1])
    variables, command = words[2 : 2 + count], words[2 + count :]
    carried = Path.cwd()
    shared = mark.is_file()
    folder = mark.parent if shared else carried
    print(f"{STARTED}{folder}", file=sys.stderr, flush=True)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "derain.cli", *(_here(word, carried) for word in command)],
        cwd=folder,
        env=_environment(variables, carried, folder),
        stdout=subprocess.PIPE,
    )
    for stop in (signal.SIGTERM, signal.SIGINT):  # Ray sends it to the command, too
        signal.signal(stop, lambda *_: None)
    assert process.stdout is not None
    _mark_results(process.stdout, sys.stdout.buffer)
    code = process.wait()
    sys.exit(code if code >= 0 else 128 - code)


def _here(word: str, carried: Path) -> str:
    if not word.startswith(CARRIED):
        return word
    return str(carried / word.removeprefix(CARRIED))


def _environment(variables: Sequence[str], carried: Path, folder: Path) -> dict[str, str]:
    """The carried code first, then what the cluster has, then modules in the job's folder."""
    given = dict(variable.split("=", 1) for variable in variables)
    modules = [str(carried), os.environ.get("PYTHONPATH", ""), str(folder)]
    return {**os.environ, **given, "PYTHONPATH": os.pathsep.join(filter(None, modules))}


def _mark_results(lines: IO[bytes], log: IO[bytes]) -> None:
    for line in lines:
        log.write(RESULT + line)
        log.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
