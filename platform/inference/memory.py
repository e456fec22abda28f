"""How much memory there is for an image, and how much a network needs for a pixel."""

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit and use of a control group, and in its `memory.stat` what the system would give back at
once; of version 2 and 1."""
UNKNOWN_BYTES = 4 * 2**30
"""What a system is taken to have that tells nothing of its memory."""


def available_bytes(device: torch.device) -> int:
    """Memory that this process may still take: of the GPU, or of the machine, its control groups
    (containers, jobs) and the limit of the process (`ulimit -v`)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    left = [_machine_bytes(), *_group_bytes(_GROUPS, _OWN_GROUPS)]
    with contextlib.suppress(ImportError, OSError):  # a registered model may run anywhere
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            left.append(limit - _line_bytes("/proc/self/status", "VmSize"))
    return max(0, min(left))


def _group_bytes(root: Path, own: Path) -> Iterator[int]:
    """What each control group of this process, and those above it, has left of its limit."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kind, path = line.split(":", 2)
        if kind not in ("", "memory"):
            continue
        top = root / kind
        within = top / path.strip("/")
        for group in (within, *within.parents):
            for names in _FILES:
                yield from _left_of(group, *names)
            if group == top:
                break


def _left_of(group: Path, limit: str, used: str, returned: str) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError):  # no limit is the word `max`
        left = int((group / limit).read_text()) - int((group / used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        yield left + int(stat.get(returned, 0))


def _machine_bytes() -> int:
    """What the machine has left; half of all it has on a system that does not say."""
    with contextlib.suppress(OSError):
        return _line_bytes("/proc/meminfo", "MemAvailable")
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return UNKNOWN_BYTES


def peak_bytes(run: Callable[[], object]) -> int:
    """The most bytes that tensors made during a call held at one time, on any device.

    Counted from the tensors themselves: what a process takes from the system says nothing, because
    it keeps memory that it has freed. Scratch memory within an operation is not counted.
    """
    with _Live() as live:
        run()
    return live.peak


class _Live(TorchDispatchMode):
    """Sums the bytes of the tensors that exist."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for item in tree_leaves(made):
            if isinstance(item, Tensor):
                self._add(item.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def forget(_: object) -> None:
            self._now -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, forget)
        self._now += size
        self.peak = max(self.peak, self._now)


def _line_bytes(file: str, name: str) -> int:
    """A number of kB in a file of /proc."""
    with open(file) as lines:  # noqa: PTH123, a file of the system
        for line in lines:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    raise OSError(f"{file} has no {name}")
