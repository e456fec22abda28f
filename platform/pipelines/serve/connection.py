"""A connection that cannot be held open by a client that does not finish its headers."""

import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0


class Connection(H11Protocol):
    """uvicorn's, which waits for headers without end; and whose refusal is JSON as all others."""

    _late: Any = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._watch()
        elif self._late is not None:
            self._late.cancel()
            self._late = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEADERS_S, self._cut_off)

    def _cut_off(self) -> None:
        self._late = None
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._refuse("408 Request Timeout", "too_slow", "The headers did not arrive in time.")

    def send_400_response(self, msg: str) -> None:
        self._refuse("400 Bad Request", "not_http", f"{msg} Headers may have 64 KiB.")

    def _refuse(self, status: str, kind: str, message: str) -> None:
        body = json.dumps({"error": {"kind": kind, "message": message}}).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
