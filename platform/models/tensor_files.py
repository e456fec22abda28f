"""Read and write .safetensors files, with the modes and the errors of any other file."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write contiguous tensors that share no memory, with the mode that umask gives.

    safetensors by itself writes files that only their owner may read. Raises OSError, which names
    the file, if it cannot be written.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        raise _system_error(error, path) or error from error
    path.chmod(mode)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises OSError if the file may not or cannot be read, ValueError if it is not whole or
    something else.
    """
    with path.open("rb"):  # safetensors calls a file that may not be read a missing one
        pass
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _system_error(error, path) or ValueError(str(error)) from error


def _system_error(error: SafetensorError, path: Path) -> OSError | None:
    """The system's error that safetensors has in its text only; None for any other."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else None
