"""An S3 server in a process of its own, and before it what makes it far: a delay on the way.

The server is moto's, which keeps everything in memory. Bytes take DELAY_S in each direction and
overlap, as on a real line: a request waits for two delays, however many are under way. Run as a
program it prints its port and serves until its standard input ends.
"""

import asyncio
import contextlib
import http.client
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

DELAY_S = 0.025
BUCKET = "far"
_PIECE = 2**18


@contextlib.contextmanager
def far_store() -> Iterator[None]:
    """An empty bucket, which s3:// of this process and of those it starts is for the block."""
    command = [sys.executable, "-m", "benchmarks._far_store"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin
        assert server.stdout
        before = dict(os.environ)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            server.stdin.close()


def _serve() -> None:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    behind = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    behind.start()
    host, port = behind.get_host_and_port()
    made = http.client.HTTPConnection(host, port)
    made.request("PUT", f"/{BUCKET}", headers={"Authorization": "AWS4 a/20260101/us-east-1/s3/"})
    assert made.getresponse().status == 200
    asyncio.run(_delaying(host, port))


async def _delaying(host: str, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, port)
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)  # whatever connections are open


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each piece arrives DELAY_S after it came, and so does the end."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

    async def receive() -> None:
        piece = b"first"
        while piece:
            with contextlib.suppress(ConnectionError):
                piece = await reader.read(_PIECE)
            await pieces.put((loop.time() + DELAY_S, piece))

    receiving = asyncio.create_task(receive())
    with contextlib.suppress(ConnectionError):
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
    receiving.cancel()
    writer.close()


if __name__ == "__main__":
    _serve()
