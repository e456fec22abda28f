"""A local Google Cloud Storage, in a process of its own: pyarrow keeps the GIL while it reads."""

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.storage.faulty_store import BUCKET

STARTING_S = 60


@contextmanager
def gcs_server() -> Iterator[tuple[str, int]]:
    """Host and port of a store with an empty bucket, in memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--in-memory", "--quiet"]
    process = subprocess.Popen(
        [*command, "--host", host, "--port", str(port), "--default-bucket", BUCKET],
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(process, host, port)
        yield host, port
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], host: str, port: int) -> None:
    ends = time.monotonic() + STARTING_S
    while process.poll() is None and time.monotonic() < ends:
        asked = http.client.HTTPConnection(host, port, timeout=5)
        try:
            asked.request("GET", f"/storage/v1/b/{BUCKET}")
            if asked.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            asked.close()
    raise RuntimeError(f"the store ended with {process.poll()} or did not answer")
