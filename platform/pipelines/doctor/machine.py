"""Python, torch, GPUs, shared memory, the disk of the cache and the clock of this machine."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from derain import errors
from derain.pipelines.doctor.check import Check
from derain.storage.node import CACHES, cache_folder

SUPPORTED = ((3, 11), (3, 13))
"""The oldest and the newest version of Python, as in pyproject.toml."""
SHM_BYTES = 2**30
"""Less room in /dev/shm makes Ray keep its objects on a disk."""
CACHE_BYTES = 5 * 2**30
SLOW_MIB_S = 50.0
PROBE_BYTES = 32 * 2**20
"""Size of the file that measures a disk."""
PROBE_S = 1.0
"""How long the disk is written to at most."""
NVIDIA_SMI_S = 10.0
SHM = Path("/dev/shm")


def python() -> list[Check]:
    """The version of Python, and of this package."""
    own = ".".join(map(str, sys.version_info[:3]))
    found = f"{own}, derain-platform {version('derain-platform')}, {sys.executable}"
    if SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        return [Check("python", "ok", found)]
    oldest, newest = (".".join(map(str, limit)) for limit in SUPPORTED)
    return [Check("python", "fail", found, f"Install Python {oldest} to {newest}.")]


def torch_and_gpus() -> list[Check]:
    """The build of torch against the driver, each GPU by a computation on it, and NCCL."""
    import torch

    build = f"torch {torch.__version__}, built for CUDA {torch.version.cuda or '- (CPU only)'}"
    driver, listed = _driver_cuda(), _nvidia_smi()
    if driver is None and not listed:
        return [Check("torch", "ok", f"{build}; no NVIDIA driver: runs use the CPU")]
    highest = "unknown" if driver is None else f"{driver // 1000}.{driver % 1000 // 10}"
    found = f"{build}; the driver takes CUDA up to {highest}"
    if not torch.cuda.is_available():
        return [Check("torch", "warn", f"{found}; torch finds no GPU", _no_gpu(driver))]
    return [Check("torch", "ok", found), *_gpus(), _nccl()]


def _no_gpu(driver: int | None) -> str:
    import torch

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides all GPUs: unset it."
    if torch.version.cuda is None:
        return "Install a build of torch with CUDA; until then `device: auto` means the CPU."
    if driver is not None and driver // 1000 < int(torch.version.cuda.split(".")[0]):
        return f"Update the driver to one for CUDA {torch.version.cuda}, or install an older torch."
    return "Run `nvidia-smi`; a container needs its GPUs passed in (`docker run --gpus all`)."


def _driver_cuda() -> int | None:
    """The newest CUDA that the driver takes, such as 13020 for 13.2; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int()
    return number.value if driver.cuDriverGetVersion(ctypes.byref(number)) == 0 else None


def _nvidia_smi() -> list[str]:
    """The GPUs that the driver lists; none without nvidia-smi, which CPU machines do not have."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _gpus() -> list[Check]:
    import torch

    checks = []
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        found = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
        try:
            torch.ones(2, device=f"cuda:{number}").sum().item()
            checks.append(Check(f"gpu {number}", "ok", found))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            remedy = "Install a torch built for this GPU, or end what occupies it."
            checks.append(Check(f"gpu {number}", "fail", f"{found}: {reason}", remedy))
    return checks


def _nccl() -> Check:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        return Check("nccl", "ok", ".".join(map(str, torch.cuda.nccl.version())))
    status: Literal["fail", "warn"] = "fail" if torch.cuda.device_count() > 1 else "warn"
    remedy = "Install a torch with NCCL, or train with one worker."
    return Check("nccl", status, "torch was built without it", remedy)


def shared_memory(folder: Path = SHM) -> list[Check]:
    """The room in /dev/shm, where Ray keeps its objects and the loader its batches."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        remedy = "Mount a tmpfs there that everybody may write to."
        return [Check(str(folder), "fail", "no folder that may be written to", remedy)]
    disk = shutil.disk_usage(folder)
    found = f"{_gib(disk.free)} of {_gib(disk.total)} free"
    if disk.free >= SHM_BYTES:
        return [Check(str(folder), "ok", found)]
    remedy = f"Give it {_gib(SHM_BYTES)} or more: `docker run --shm-size=8g`, or an emptyDir of "
    return [Check(str(folder), "warn", found, remedy + "medium Memory on Kubernetes.")]


def cache_disk(folder: str | Path | None = None) -> list[Check]:
    """The disk of the cache of pixels: its room, and the speed of a small file on it."""
    place = cache_folder(folder)
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if free < 2 * PROBE_BYTES:
        remedy = f"Free some space, or set {CACHES} to a folder on another local disk."
        return [Check("cache", "fail", f"{place}: {_gib(free)} free", remedy)]
    wrote, read = _speeds(place)
    found = f"{place}: {_gib(free)} free, writes {wrote:,.0f} MiB/s, reads {read:,.0f} MiB/s"
    if free >= CACHE_BYTES and min(wrote, read) >= SLOW_MIB_S:
        return [Check("cache", "ok", found)]
    return [Check("cache", "warn", found, f"Set {CACHES} to a larger or faster local disk.")]


def _speeds(folder: Path) -> tuple[float, float]:
    """MiB a second of a file that is written through to the disk, and read from there."""
    probe = folder / f".derain-{uuid.uuid4().hex}"
    block, size, start = os.urandom(2**20), 0, time.monotonic()
    try:
        with probe.open("wb", buffering=0) as file:
            while size < PROBE_BYTES and time.monotonic() < start + PROBE_S:
                size += file.write(block)
            os.fsync(file.fileno())
            wrote = size / 2**20 / (time.monotonic() - start)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.monotonic()
        with probe.open("rb", buffering=0) as file:
            while file.read(2**20):
                pass
        return wrote, size / 2**20 / max(time.monotonic() - start, 1e-9)
    finally:
        probe.unlink(missing_ok=True)


def clock() -> list[Check]:
    """The clock against the age of this package's files, which are not from the future."""
    now = time.time()
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now >= Path(errors.__file__).stat().st_mtime - 60:
        return [Check("clock", "ok", found)]
    remedy = "Set the clock (`timedatectl set-ntp true`): stores refuse requests signed in the past"
    return [Check("clock", "warn", f"{found}, before this package was installed", f"{remedy}.")]


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
