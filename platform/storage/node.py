"""What belongs to this node alone: its folder of caches, and the time since its last start."""

import os
from pathlib import Path

from derain.errors import UsageError

CACHES = "DERAIN_CACHE_DIR"
"""The environment's name of the folder of caches."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def cache_folder(folder: str | Path | None) -> Path:
    """The folder of caches: `folder`, default: DERAIN_CACHE_DIR, then the user's cache folder."""
    chosen = folder or os.environ.get(CACHES)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return Path(base or Path.home() / ".cache") / "derain"
    except RuntimeError as error:
        raise UsageError(
            f"There is no home folder for the cache ({error}). Set {CACHES} or data.cache_dir "
            "to a folder on a local disk, or HOME."
        ) from None


def boot() -> str:
    """The identity of this start of the machine, after which nobody knows which bytes of files that
    were being written have reached the disk; "0" where the system has none."""
    return _BOOT.read_text().strip()[:8] if _BOOT.exists() else "0"
