"""A local Google Cloud Storage in its own process: pyarrow holds the GIL while it reads."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.processes import answers, free_port, wait_for
from tests.storage.faulty_store import BUCKET

STARTING_S = 60


@contextmanager
def gcs_server() -> Iterator[tuple[str, int]]:
    """Host and port of a store in memory with an empty bucket."""
    host, port = "127.0.0.1", free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--in-memory", "--quiet"]
    process = subprocess.Popen(
        [*command, "--host", host, "--port", str(port), "--default-bucket", BUCKET],
        stdout=subprocess.DEVNULL,
    )
    try:
        bucket = f"http://{host}:{port}/storage/v1/b/{BUCKET}"
        wait_for(lambda: answers(bucket), STARTING_S, process=process)
        yield host, port
    finally:
        process.kill()
        process.wait()
