"""A local S3 server behind a proxy that fails, stalls and cuts bodies short, by a seeded draw."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from moto.server import ThreadedMotoServer

BUCKET = "rain"
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": "us-east-1"}


class FaultyStore(ThreadingHTTPServer):
    """Passes requests on to `behind`; a share of the answers goes wrong."""

    daemon_threads = True

    def __init__(self, behind: tuple[str, int], seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.errors = self.stalls = self.cuts = 0.0
        self.stall_s = 0.5
        self.done: Counter[str] = Counter()
        self._draw = random.Random(seed)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """For a client that is to meet the faults."""
        return _environment(self.url)

    @property
    def faultless(self) -> dict[str, str]:
        """For one that asks the store itself."""
        return _environment("http://{}:{}".format(*self.behind))

    def fault(self) -> str:
        """What happens to this request."""
        with self._lock:
            drawn = self._draw.random()
            for name in ("errors", "stalls", "cuts"):
                drawn -= getattr(self, name)
                if drawn < 0:
                    self.done[name] += 1
                    return name
            self.done["served"] += 1
            return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyStore

    def _pass_on(self) -> None:
        body = self._body()
        fault = self.server.fault()
        if fault == "errors":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "stalls":
            time.sleep(self.server.stall_s)
        status, headers, data = self._ask(body)
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in headers}:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "cuts" and self.command == "GET" and len(data) > 1:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _body(self) -> bytes:
        """The request's content, sent at once or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        del self.headers["Transfer-Encoding"]
        self.headers["Content-Length"] = str(sum(map(len, pieces)))
        return b"".join(pieces)

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        there = http.client.HTTPConnection(*self.server.behind, timeout=60)
        there.request(self.command, self.path, body, dict(self.headers.items()))
        answer = there.getresponse()
        data = answer.read()
        there.close()
        return answer.status, answer.getheaders(), data

    def log_message(self, *_: object) -> None:
        """Nothing: requests are counted, not printed."""


def _environment(url: str) -> dict[str, str]:
    addresses = {"AWS_ENDPOINT_URL": url, "STORAGE_EMULATOR_HOST": url}
    return {**KEYS, **addresses, "AWS_EC2_METADATA_DISABLED": "true"}


@contextmanager
def faulty(behind: tuple[str, int], seed: int = 0) -> Iterator[FaultyStore]:
    """What stands before a store; without faults until they are set."""
    store = FaultyStore(behind, seed)
    thread = threading.Thread(target=store.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        store.shutdown()
        store.server_close()


@contextmanager
def faulty_store(seed: int = 0) -> Iterator[FaultyStore]:
    """An S3 with an empty bucket."""
    behind = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    behind.start()
    try:
        with faulty(behind.get_host_and_port(), seed) as store:
            made = http.client.HTTPConnection(*store.behind)
            headers = {"Authorization": "AWS4 any/20260101/us-east-1/s3/"}
            made.request("PUT", f"/{BUCKET}", headers=headers)
            assert made.getresponse().status == 200
            yield store
    finally:
        behind.stop()
