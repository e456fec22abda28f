"""Other processes, as tests start, watch and kill them; and a limit on what this one may write."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Done:
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


def wait_for(
    condition: Callable[[], object],
    seconds: float = 300,
    *,
    process: subprocess.Popen | None = None,
) -> float:
    """Seconds until the condition held; fails when they are over, or when `process` ends first."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, f"not within {seconds} s"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)
    return time.monotonic() - start


def kill_group(process: subprocess.Popen) -> None:
    """SIGKILL for a process that leads a group, and for all that it has started in the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def children(parent: int) -> set[int]:
    """Processes whose parent is `parent` and that have not ended."""
    pids = {int(entry.name) for entry in Path("/proc").glob("[0-9]*")}
    return {pid for pid in pids if parent_of(pid) == parent}


def descendants(parent: int) -> set[int]:
    """All running processes below `parent`: children, their children, and so on."""
    direct = children(parent)
    return direct.union(*map(descendants, direct))


def parent_of(pid: int) -> int | None:
    """None for a process that has ended, also while it is still a zombie."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def command_line(pid: int) -> str:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def answers(url: str) -> bool:
    """Whether the HTTP server of a local URL answers with 200."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), direct.open(url, timeout=5) as answer:
        return answer.status == 200
    return False


def free_port() -> int:
    """A TCP port of 127.0.0.1 that no process listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """As on a disk that fills up: this process may make no file larger than `size` bytes.

    A write beyond that stores what fits.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
