"""The CPU cores that this process may use, which a container or a batch system may limit."""

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Number of cores that this process may use: by its affinity, and by the quota of its cgroup.

    A quota of two and a half cores counts as two.
    """
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min([allowed, *(int(quota) for quota in _quotas(_CGROUPS, _OWN_GROUPS))]))


def _quotas(root: Path, own: Path) -> Iterator[float]:
    """The quotas, in cores, of this process's cgroup and of those above it."""
    for folder in _folders(root, own):
        quota, period = _read(folder / "cpu.max") or (
            *(_read(folder / "cpu.cfs_quota_us") or ("-1",)),
            *(_read(folder / "cpu.cfs_period_us") or ("100000",)),
        )
        if quota.isdecimal() and int(period) > 0:  # else "max", or -1 in version 1
            yield int(quota) / int(period)


def _folders(root: Path, own: Path) -> Iterator[Path]:
    """The folders of the cgroups, of version 2 (`0::/a/b`) and version 1 (`1:cpu:/a/b`)."""
    for line in (_text(own) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield folder


def _read(path: Path) -> tuple[str, ...] | None:
    text = _text(path)
    return tuple(text.split()) if text else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
