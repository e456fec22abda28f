"""A real `derainctl serve`: hostile load, a killed replica, a new version, a stop under load.

REQUESTS in the environment changes the number of the first test, which is 10,000.
"""

import http.client
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks._small import NETWORK
from derain.data.images.convert import read_odd
from derain.inference.predictor import Predictor, save_model_folder
from derain.models import build
from tests.data.images.odd_images import SIGNATURE, chunk, encoded
from tests.processes import answers, command_line, descendants, free_port, wait_for

REQUESTS = int(os.environ.get("REQUESTS", "10000"))
CLIENTS = 4
HOSTILE_SHARE = 0.05
GROWTH_BYTES = 150 * 2**20
"""What all processes together may take more at the end than after a tenth of the requests."""
OPTIONS = {key: value for key, value in NETWORK.items() if key != "name"}
Answer = tuple[int, bytes, dict[str, str]]


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build("fclip_unet", **OPTIONS)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen, int]]:
    folder = tmp_path_factory.mktemp("serve")
    save_model_folder(network(0), folder / "net", "fclip_unet", OPTIONS)
    process, port = start(folder, "net", "--max-pixels", "1000000", "--replicas", "2")
    yield process, port
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def start(folder: Path, *arguments: str) -> tuple[subprocess.Popen, int]:
    port = free_port()
    command = [sys.executable, "-m", "derain.cli", "serve", *arguments, "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 200, process=process)
    return process, port


def post(port: int, body: bytes, path: str = "/v1/derain") -> Answer:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        client.request("POST", path, body)
        answer = client.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        client.close()


def images() -> list[tuple[bytes, bytes]]:
    """Images to send, and what `predict` makes of each."""
    predictor, pairs = Predictor(network(0)), []
    for number, (height, width) in enumerate([(64, 64), (33, 47), (128, 96), (64, 64)]):
        levels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        data = encoded(Image.fromarray(levels), "TIFF" if number == 3 else "PNG")
        image = read_odd(data, "it")
        pairs.append((data, image.encode_result(predictor.derain(image.srgb))))
    return pairs


def raw(port: int, data: bytes) -> int:
    """The status for these bytes, whatever they are."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(data)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        answer.read()
        return answer.status


def hostile(port: int, number: int, good: bytes) -> int:
    """The status for one of eight attacks."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(2**20)))
    attacks = [
        lambda: post(port, bomb + chunk(b"IEND"))[0],
        lambda: post(port, good[: len(good) // 2])[0],
        lambda: post(port, b"%PDF-1.7 not an image")[0],
        lambda: raw(port, b"POST /v1/derain HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"),
        lambda: raw(port, b"GET / HTTP/1.1\r\nX: " + b"x" * 90_000 + b"\r\n\r\n"),
        lambda: raw(port, b"GET /../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"),
        lambda: raw(
            port,
            b"POST /v1/derain HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
            + bytes(2**20),
        ),
        lambda: post(port, good, "/v1/derain?model=../../etc")[0],
    ]
    return attacks[number % len(attacks)]()


def memory(pid: int) -> int:
    """Bytes that a process and all below it have in memory, shared pages counted once each."""
    pages = 0
    for one in {pid, *descendants(pid)}:
        text = Path(f"/proc/{one}/statm").read_text().split()
        pages += int(text[1]) - int(text[2])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_hostile_load(served: tuple[subprocess.Popen, int]) -> None:
    process, port = served
    pairs, statuses = images(), Counter[tuple[str, int]]()
    wrong, growth = [], []

    def one(number: int) -> None:
        data, expected = pairs[number % len(pairs)]
        if np.random.default_rng(number).random() < HOSTILE_SHARE:
            statuses["hostile", hostile(port, number, data)] += 1
            return
        status, body, _ = post(port, data)
        statuses["good", status] += 1
        if status == 200 and not np.array_equal(
            read_odd(body, "found").levels, read_odd(expected, "expected").levels
        ):
            wrong.append(number)
        if number in (REQUESTS // 10, REQUESTS - 10):
            growth.append(memory(process.pid))

    begin = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(one, range(REQUESTS)))
    seconds = time.monotonic() - begin
    print(f"\n{REQUESTS} requests in {seconds:.0f} s: {dict(statuses)}, memory {growth}")
    assert not wrong
    assert process.poll() is None
    assert {status for kind, status in statuses if kind == "good"} == {200}
    assert all(400 <= status < 500 for kind, status in statuses if kind == "hostile")
    assert not growth[1:] or growth[-1] - growth[0] < GROWTH_BYTES


def replicas(pid: int) -> list[int]:
    return [it for it in descendants(pid) if "ServeReplica" in command_line(it)]


def test_a_killed_replica_costs_what_it_held(served: tuple[subprocess.Popen, int]) -> None:
    process, port = served
    (data, _), *_ = images()
    found: list[Answer] = []
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            found.append(post(port, data))

    clients = [threading.Thread(target=load) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    time.sleep(2)
    before = replicas(process.pid)
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: set(replicas(process.pid)) - set(before), 120)
    time.sleep(3)
    ended.set()
    for client in clients:
        client.join()
    lost = [headers for status, _, headers in found if status == 503]
    print(f"\na replica killed: {len(found)} requests, {len(lost)} got 503")
    assert {status for status, *_ in found} <= {200, 503}
    assert len(lost) <= CLIENTS
    assert all(headers["retry-after"] for headers in lost)


def test_a_stop_answers_what_is_in_hand(tmp_path: Path) -> None:
    save_model_folder(network(0), tmp_path / "net", "fclip_unet", OPTIONS)
    process, port = start(tmp_path, "net")
    levels = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    data, found = encoded(Image.fromarray(levels)), []
    clients = [threading.Thread(target=lambda: found.append(post(port, data))) for _ in range(3)]
    for client in clients:
        client.start()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    code = process.wait(90)
    for client in clients:
        client.join()
    print(f"\nended with {code} after {time.monotonic() - begin:.0f} s")
    assert code == 143
    assert [status for status, *_ in found] == [200] * 3
    assert "Traceback" not in (tmp_path / "log").read_text()
