"""A real server on loopback, without Ray: slow senders, long headers, a full queue, a stop."""

import asyncio
import http.client
import json
import socket
import threading
import time

import pytest
import uvicorn

from derain.pipelines.serve import connection
from derain.pipelines.serve.answers import Derained
from derain.pipelines.serve.app import Served, Service
from tests.processes import wait_for

HEAD = b"POST /v1/derain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
CHUNKED = b"POST /v1/derain?model=slow HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"


@pytest.fixture(autouse=True)
def _short_and_slow(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time for headers; a second model that takes longer than that."""
    monkeypatch.setattr(connection, "HEADERS_S", 0.5)

    async def slow(data: bytes) -> Derained:
        await asyncio.sleep(0.7)
        return Derained(data, "image/png", {})

    service.models["slow"] = Served("slow", slow)


def sent(port: int, data: bytes) -> tuple[int, str]:
    """Status and kind of error that a client gets which sends these bytes and waits."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(data)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        return answer.status, json.loads(answer.read())["error"]["kind"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"POST /v1/der", (408, "too_slow")),
        (b"", (408, "too_slow")),
        (HEAD + b"half of a body", (408, "too_slow")),
        (HEAD.replace(b"100", b"9999999") + b"some", (413, "too_large")),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", (400, "not_http")),
        (b"GET / HTTP/1.1\r\n" + b"X: 3456\r\n" * 20_000 + b"\r\n", (400, "not_http")),
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", (400, "not_http")),
        (CHUNKED + b"\r\n1\r\na\r\n0\r\n" + b"X: 3456\r\n" * 20_000, (400, "not_http")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400, "not_http")),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", (404, "no_such_route")),
    ],
    ids=[
        "half a line",
        "nothing",
        "half a body",
        "large",
        "a long header",
        "many headers",
        "a long address",
        "behind the body",
        "TLS",
        "path",
    ],
)
def test_who_does_not_finish_is_cut_off(port: int, data: bytes, expected: tuple[int, str]) -> None:
    assert sent(port, data) == expected


@pytest.mark.parametrize(
    "begun", [b"GET / HTTP/1.1\r\nX: ", CHUNKED + b"\r\n1;x=", CHUNKED + b"\r\n1\r\na\r\n0\r\nX: "]
)
def test_a_header_without_end_is_not_kept(
    port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connection, "HEADERS_S", 60)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(begun)
        assert _refused_after(client, 2**22)


def _refused_after(client: socket.socket, most: int) -> bool:
    """Whether the server hangs up before so many bytes are sent."""
    try:
        for _ in range(most // 1000):
            client.sendall(b"x" * 1000)
    except OSError:
        return True
    return False


def test_many_chunks_and_a_wish_for_http_2_are_answered(port: int) -> None:
    chunks = b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n"
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    for head, body, length in (
        (CHUNKED + b"\r\n", chunks, 30_000),
        (CHUNKED + wish + b"\r\n", b"3\r\nabc\r\n0\r\n\r\n", 3),
        (HEAD[:-2] + wish + b"\r\n", b"x" * 100, None),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(head + body)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            data = answer.read()
            assert answer.status == (415 if length is None else 200), data
            assert length in (None, len(data))


def post(port: int, path: str, answers: list[tuple[int, str | None]]) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request("POST", path, b"\x89PNG")
    answer = client.getresponse()
    answer.read()
    answers.append((answer.status, answer.getheader("Retry-After")))
    client.close()


def test_a_full_queue_says_when_to_come_back_and_a_stop_answers_what_is_in_hand(
    server: uvicorn.Server, port: int, service: Service
) -> None:
    answers: list[tuple[int, str | None]] = []
    path = "/v1/derain?model=slow"
    clients = [threading.Thread(target=post, args=(port, path, answers)) for _ in range(2)]
    for client in clients:
        client.start()
    wait_for(lambda: service.models["slow"].in_hand == 2, 10)
    post(port, path, answers)
    assert answers == [(429, "1")]
    server.should_exit = True
    for client in clients:
        client.join(20)
    assert answers[1:] == [(200, None)] * 2
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_kept_connection_is_not_cut_off_while_it_works(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(3):
        client.request("POST", "/v1/derain?model=slow", b"\x89PNG")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (200, b"\x89PNG")
        time.sleep(0.1)
