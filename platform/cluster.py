"""Starting Ray on this machine, or connecting to a running cluster."""

import contextlib
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from derain.errors import DerainError, StoppedError, UsageError
from derain.storage.cores import available_cores
from derain.storage.output_paths import may_write

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
PATIENCE = {
    "RAY_gcs_server_port_wait_time_s": "120",
    "RAY_gcs_server_request_timeout_seconds": "120",
}
"""How long a second start of Ray waits for its processes; by default 30 and 60 s."""
OOM_RETRIES = {"RAY_task_oom_retries": "3"}
"""How often Ray repeats a task that its guard of the memory ended; by default for ever."""
_GUARD = "killed due to the node running low on memory"
_HELD = re.compile(r"Selected to kill: .*?actual memory used=([\d.]+GB)", re.S)
_IN_USE = re.compile(r"was ([\d.]+GB) used / ([\d.]+GB) limit")
_NODE = re.compile(r"\(IP: ([^,)]+)")
LONGEST_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.12345")
"""Bytes of Ray's folder: the path of a socket in it has at most 107."""
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
_NOISY_LOGGERS = ("ray._private.authentication", "ray.data")
"""They warn at every start that token authentication is on and that our settings apply."""


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Connect to Ray for the duration of the block: to RAY_ADDRESS, default: a new local Ray.

    If this process is already connected, that connection is used and left open. Raises DerainError
    if no Ray answers at RAY_ADDRESS, if none starts on this machine, or if it ended a task of the
    block because the memory ran out.
    """
    with _memory_explained():
        if ray.is_initialized():
            yield
            return
        _start()
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    try:
        yield
    except ray.exceptions.OutOfMemoryError as error:
        found = out_of_memory(str(error)) or "Ray ended its process: the machine ran out of memory"
        raise DerainError(
            f"{found}. End other programs there, or use a machine with more memory; then run the "
            "same command again."
        ) from error


def out_of_memory(text: str) -> str | None:
    """What Ray's guard of the memory has done, if the text of an error is its own; else None."""
    if _GUARD not in text:
        return None
    held, in_use, node = _HELD.search(text), _IN_USE.search(text), _NODE.search(text)
    return (
        f"Ray ended its process, as the machine{f' {node[1]}' if node else ''} ran out of memory"
        + (f": {in_use[1]} of {in_use[2]} were in use" if in_use else "")
        + (f", {held[1]} by this process" if held else "")
    )


def _start() -> None:
    address = os.environ.get("RAY_ADDRESS")
    log.info("ray: %s", f"connecting to {address}" if address else "starting on this machine")
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    options = {"log_to_driver": False, "configure_logging": False}
    with _own_sigterm():
        _connect_or_start(address, options)
    ray.data.DataContext.get_current().enable_progress_bars = False  # we print our own


def _connect_or_start(address: str | None, options: Mapping[str, Any]) -> None:
    if address:
        _connect(address, options)
        _warn_of_temporary_copy()
    else:
        _start_here({**options, **_for_this_machine(), "num_cpus": available_cores()})


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the command's handler of SIGTERM, which Ray replaces by one that exits with 15; a
    command without one exits with 143, as an exception that closes what is open."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if callable(before) else _exit)


def _exit(*_: object) -> NoReturn:
    sys.exit(StoppedError.exit_code)


def _start_here(options: Mapping[str, Any]) -> None:
    """Start Ray on this machine; on a loaded one it may take longer than Ray waits, so twice."""
    for patience in ({}, PATIENCE):
        os.environ.update({**OOM_RETRIES, **patience})
        try:
            # Without "local" Ray joins whatever cluster was last started on this machine.
            with _signals_held_back():
                ray.init(address="local", include_dashboard=False, **options)
            return
        except Exception as error:  # Ray raises plain Exceptions
            ray.shutdown()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise  # the disk refuses, and would again
            reason = " ".join(str(error).split())
            if patience:
                raise DerainError(
                    f"Ray did not start on this machine, in two tries ({reason}). Call again when "
                    "fewer programs run, or start Ray with `ray start --head` and set "
                    "RAY_ADDRESS=auto."
                ) from error
            log.warning("ray: did not start (%s); trying once more, with more time", reason)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Processes started in the block never receive SIGTERM and SIGHUP; this one does after it.

    A batch system or a service manager ends a job with SIGTERM to all of its processes. Ray's own
    would end at once, and take the workers along before they have saved. They die with this process
    in any case (Ray asks the kernel for that), and by SIGKILL.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        if ray.is_initialized():
            _end_by_sigkill()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_by_sigkill() -> None:
    """Have `ray.shutdown` send SIGKILL: after a SIGTERM it would wait a second for each process."""
    for started in ray._private.worker._global_node.all_processes.values():
        for info in started:
            info.process.terminate = info.process.kill


def _for_this_machine() -> dict[str, Any]:
    """Options of a new Ray, whatever the folders of this user and machine are like.

    Raises UsageError for a command line or a working directory that Ray cannot record.
    """
    for name in (*sys.argv, str(Path.cwd())):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{name!a}: Ray needs names in UTF-8, found other bytes. Rename the "
                "file or folder, for example with `convmv`."
            ) from None
    if not _has_token_place():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    folder = _short_folder()
    return {} if folder is None else {"_temp_dir": folder}


def _has_token_place() -> bool:
    """Whether Ray's processes find their common token by themselves: Ray writes it to ~/.ray."""
    if os.environ.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        return True
    try:
        folder = Path.home() / ".ray"
    except RuntimeError:  # no HOME, and the user has no name
        return False
    if not os.environ.get("HOME"):
        return False
    token = folder / "auth_token"
    if os.path.exists(token):  # noqa: PTH110 - False where Path.exists raises PermissionError
        return os.access(token, os.R_OK)
    return may_write(folder if os.path.isdir(folder) else folder.parent)  # noqa: PTH112


def _short_folder() -> str | None:
    """A folder for Ray, if the system's folder for temporary files has too long a path for its
    sockets; None if that one serves."""
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    if len(os.fsencode(os.path.abspath(usual))) + len("/ray") <= LONGEST_FOLDER:  # noqa: PTH100
        return None
    for place in SHORT_FOLDERS:
        if may_write(Path(place)):
            folder = f"{place}/ray-{os.getuid()}"
            log.info("ray: %s is too long a path for its sockets; using %s", usual, folder)
            return folder
    raise UsageError(
        f"{usual}: too long a path for Ray, which needs one of at most {LONGEST_FOLDER - 4} bytes. "
        "Set RAY_TMPDIR to a short one on a local disk."
    )


def _connect(address: str, options: Mapping[str, Any]) -> None:
    try:
        _check_reachable(address)
        ray.init(address=address, **options)
    except Exception as error:  # Ray raises five types of its own, for ray:// those of its client
        reason = " ".join(str(error).split())
        raise DerainError(
            f"RAY_ADDRESS is {address}, but no Ray cluster can be reached there ({reason}). "
            "Expected HOST:PORT of a running cluster, ray://HOST:PORT, or auto. If the variable is "
            "not set, Ray starts on this machine."
        ) from error


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing listens there: Ray would retry for minutes and then exit."""
    scheme, _, host_port = address.rpartition("://")
    host, _, port = host_port.rpartition(":")
    if scheme in ("", "ray") and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _warn_of_temporary_copy() -> None:
    if "working_dir_files" in Path.cwd().parts:
        log.warning(
            "This Ray job runs in a temporary copy of its folder. To keep the results, point "
            "--set output_dir=... and MLFLOW_TRACKING_URI at permanent storage."
        )


def cpus() -> int:
    """Number of CPU cores in the connected cluster."""
    return int(ray.cluster_resources().get("CPU", 1))


def gpus() -> int:
    """Number of GPUs in the connected cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def node_count() -> int:
    """Number of nodes in the connected cluster."""
    return len(_nodes())


def on_every_node(work: Callable[..., T], *arguments: object) -> dict[str, T]:
    """Call a function once on each node of the connected cluster; its results by node address.

    It takes no core, so that it also runs on a node that is fully in use.
    """
    calls = calls_on_every_node(work, *arguments)
    return dict(zip(calls, ray.get(list(calls.values())), strict=True))


def calls_on_every_node(work: Callable[..., T], *arguments: object) -> dict[str, Any]:
    """As `on_every_node`, without waiting: Ray's references to the results by node address."""
    remote = ray.remote(num_cpus=0)(work)
    calls = {}
    for node in _nodes():
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})"
        calls[name] = remote.options(scheduling_strategy=here).remote(*arguments)
    return calls


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
