"""Connecting to Ray: an open connection is reused, an unreachable cluster is named at once."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from derain import cluster
from derain.errors import DerainError, UsageError
from tests.processes import command_line, descendants

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_an_open_connection_is_reused_and_left_open() -> None:
    before = ray.get_runtime_context().gcs_address
    with cluster.connected():
        assert ray.get_runtime_context().gcs_address == before
    assert ray.is_initialized()


@ray.remote(max_retries=0)
def _too_large() -> None:
    raise OutOfMemoryError(
        "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: "
        "10.0.0.7, ID: bdc6d2c7) was 30.46GB used / 32.00GB limit (0.951875)"
    )


def test_a_task_that_ray_ended_for_its_memory_is_one_message() -> None:
    """Whichever task: also those of Ray Data, which are no run's."""
    message = r"10\.0\.0\.7 ran out of memory: 30\.46GB of 32\.00GB"
    with pytest.raises(DerainError, match=message), cluster.connected():
        ray.get(_too_large.remote())


@pytest.mark.soak
def test_a_task_of_a_new_ray_is_not_repeated_for_ever() -> None:
    """A threshold below what the machine uses anyway: each worker is ended when it starts."""
    script = (
        "import ray\nfrom derain import cluster\n"
        "with cluster.connected(): ray.get(ray.remote(lambda: None).remote())"
    )
    low = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **low}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert "DerainError: Ray ended its process, as the machine" in done.stderr


def test_resources_are_those_that_ray_reports() -> None:
    assert cluster.cpus() == int(ray.cluster_resources()["CPU"])
    assert cluster.gpus() == int(ray.cluster_resources().get("GPU", 0))


def test_a_new_ray_has_the_cores_that_this_process_may_use() -> None:
    """In a process of its own, which may use one of the machine's cores."""
    script = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from derain import cluster\n"
        "with cluster.connected(): print('cores', cluster.cpus())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "cores 1\n" in done.stdout, done.stderr


class Worker:
    def pid(self) -> int:
        return os.getpid()


def test_sigterm_to_the_whole_job_leaves_ray_to_the_command() -> None:
    """Batch systems send it to every process. This process has started the Ray of all tests."""
    worker = ray.remote(Worker).options(num_cpus=0).remote()
    lines = {pid: command_line(pid) for pid in descendants(os.getpid())}
    servers = [pid for pid, line in lines.items() if "/raylet/raylet" in line]
    servers += [pid for pid, line in lines.items() if "/gcs/gcs_server" in line]
    assert len(servers) >= 2
    told = [*servers, ray.get(worker.pid.remote())]
    for pid in told:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGHUP)
    time.sleep(1)
    assert [pid for pid in told if not command_line(pid)] == []
    assert ray.get(worker.pid.remote()) == told[-1]
    ray.kill(worker)


def test_the_commands_own_handler_of_sigterm_stays_and_others_exit_with_143() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        for own, expected in ((print, print), (signal.SIG_DFL, cluster._exit)):
            signal.signal(signal.SIGTERM, own)
            with cluster._own_sigterm():
                signal.signal(signal.SIGTERM, len)  # as Ray does
            assert signal.getsignal(signal.SIGTERM) is expected
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "ray://127.0.0.1:1", "http://x", "nonsense://x"]
)
def test_an_unreachable_cluster_is_named_at_once(address: str) -> None:
    """Calls `_connect`, as `connected` would reuse the Ray that the tests have started."""
    with pytest.raises(DerainError, match=rf"RAY_ADDRESS is {address}.*HOST:PORT"):
        cluster._connect(address, {"ignore_reinit_error": False})


@pytest.fixture
def _starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start of Ray sets in the environment is gone after the test."""
    for name in (*cluster.PATIENCE, "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


@pytest.mark.usefixtures("_starts")
def test_a_start_that_times_out_is_tried_once_more_with_more_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = []

    def start(**_: object) -> None:
        waits.append(os.environ.get(min(cluster.PATIENCE)))
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", start)

    with pytest.raises(DerainError, match=r"two tries \(The current node timed out.*RAY_ADDRESS"):
        cluster._start_here({})
    assert waits == [None, "120"]


@pytest.mark.usefixtures("_starts")
def test_a_disk_that_refuses_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def start(**_: object) -> None:
        starts.append(1)
        raise PermissionError(errno.EACCES, "Permission denied", "/tmp/ray")

    monkeypatch.setattr(ray, "init", start)

    with pytest.raises(PermissionError):
        cluster._start_here({})
    assert len(starts) == 1


@pytest.mark.usefixtures("_starts")
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_folder_for_temporary_files_is_replaced_by_a_short_one(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, "/scratch/jobs/" + "x" * 60)
    folder = cluster._for_this_machine()["_temp_dir"]
    assert len(folder) <= cluster.LONGEST_FOLDER
    monkeypatch.setenv(variable, "/scratch/job")
    assert "_temp_dir" not in cluster._for_this_machine()
    monkeypatch.setenv(variable, "/scratch/jobs/" + "x" * 60)
    monkeypatch.setattr(cluster, "SHORT_FOLDERS", ())
    with pytest.raises(UsageError, match="RAY_TMPDIR"):
        cluster._for_this_machine()


@pytest.mark.usefixtures("_starts")
@pytest.mark.parametrize("home", [None, "", "/nowhere"])
def test_without_a_home_folder_the_token_is_given_to_rays_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster._for_this_machine()
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    cluster._for_this_machine()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


@pytest.mark.usefixtures("_starts")
def test_a_command_line_that_is_not_utf_8_is_refused_before_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["derainctl", "prepare", "paired", "in", "out-\udcd3\udcea"])
    with pytest.raises(UsageError, match=r"out-.udcd3.udcea.*UTF-8"):
        cluster._for_this_machine()
