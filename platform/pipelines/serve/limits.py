"""What a request may cost before its image is decoded: bytes, time, places in the queue."""

import asyncio
import contextlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from derain.pipelines.serve.answers import RefusedError

RETRY_S = 1
DISCARDED_BYTES, DISCARDED_S = 2**24, 2.0
"""Of a body that is too large: read and thrown away, so that the sender sees the answer."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request and all together may take."""

    max_bytes: int = 2**26
    """Of a request's body."""
    max_pixels: int = 25_000_000
    queue: int = 32
    """Requests that are received or computed at one time; more get 429."""
    body_s: float = 20.0
    """For the body of a request to arrive."""
    answer_s: float = 120.0
    """From the last byte of a request to its answer."""


class Queue:
    """Counts the requests in hand."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_hand = 0

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for the block; raises RefusedError (429) if all are taken."""
        if self.in_hand >= self._limit:
            raise RefusedError(
                429, "busy", f"{self.in_hand} requests are waiting already; try again.", RETRY_S
            )
        self.in_hand += 1
        try:
            yield
        finally:
            self.in_hand -= 1


def check_key(request: Request, key: str | None) -> None:
    """Raise RefusedError (401) unless the request has the key, if there is one."""
    if key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), key.encode()):
        raise RefusedError(401, "no_key", "Expected the header `Authorization: Bearer KEY`.")


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request.

    Raises RefusedError: 413 beyond `max_bytes`, before it is read if it says so; 408 if it does not
    arrive in time; 400 if it is empty or the sender has gone.
    """
    stated = request.headers.get("content-length", "")
    too_large = stated.isdecimal() and int(stated) > limits.max_bytes
    if too_large and request.headers.get("expect", "").lower() == "100-continue":
        raise _too_large(limits)
    body, received = bytearray(), 0
    try:
        async with asyncio.timeout(DISCARDED_S if too_large else limits.body_s):
            async for chunk in request.stream():
                received += len(chunk)
                too_large = too_large or received > limits.max_bytes
                if too_large and received > DISCARDED_BYTES:
                    break
                if not too_large:
                    body += chunk
    except TimeoutError:
        if not too_large:
            wanted = f"within {limits.body_s:g} s"
            raise RefusedError(408, "too_slow", f"The body did not arrive {wanted}.") from None
    except ClientDisconnect:
        raise RefusedError(400, "incomplete", "The body ended before its length.") from None
    if too_large:
        raise _too_large(limits)
    if not body:
        raise RefusedError(400, "empty", "The body is empty; expected an image.")
    return bytes(body)


def _too_large(limits: Limits) -> RefusedError:
    return RefusedError(
        413, "too_large", f"At most {limits.max_bytes:,} bytes are accepted. Send a smaller image."
    )
