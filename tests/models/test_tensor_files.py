"""Files of tensors have the mode of any other file, and the system's errors keep their meaning."""

import os
import stat
from pathlib import Path

import pytest
import torch

from derain.models.tensor_files import read_tensors, write_tensors

TENSORS = {"a": torch.arange(3.0)}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_has_the_mode_that_umask_gives(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_tensors(TENSORS, tmp_path / "a.safetensors")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == mode
    assert torch.equal(read_tensors(tmp_path / "a.safetensors")["a"], TENSORS["a"])


def test_what_the_system_refuses_is_its_own_error_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        write_tensors(TENSORS, tmp_path / "none" / "a.safetensors")
    with pytest.raises(IsADirectoryError):
        read_tensors(tmp_path)


def test_a_file_without_an_end_is_no_error_of_the_system(tmp_path: Path) -> None:
    write_tensors(TENSORS, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-1])

    with pytest.raises(ValueError, match=r"[Ii]ncomplete|[Ii]nvalid"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    """The file system's quota is a limit on the size of a file, in a process of its own."""
    path = tmp_path / "a.safetensors"
    child = os.fork()
    if child == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        try:
            write_tensors({"a": torch.zeros(10_000)}, path)
        except OSError as error:
            os._exit(0 if error.filename == str(path) and "large" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
