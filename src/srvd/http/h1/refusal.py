"""Why a request is refused: the status the peer gets and one sentence for the log.

Not the application's errors, and not those of srvd itself: these are the peer's.
"""

from __future__ import annotations

__all__ = ["REASONS", "Refusal", "answer"]

REASONS: dict[int, str] = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    421: "Misdirected Request",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

_CLOSES = {
    426: b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade, close\r\n",
    503: b"Retry-After: 1\r\nConnection: close\r\n",
}
"""Fields that an answer must have (426: RFC 9110 section 15.5.22, RFC 6455 section 4.4), or should (503)."""


class Refusal(Exception):
    """What came is no request that will be served; the connection ends after the answer (RFC 9112 section 9.6)."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(status, why)
        self.status = status
        self.why = why


def answer(status: int, stamp: bytes, *, bodiless: bool = False) -> bytes:
    """The whole response of the server's own to a refused or failed request; it closes the connection.

    `stamp` is the Server and Date lines (`clock.Stamp`). The text says no more than the status does: why it was
    refused is the log's.
    """
    reason = REASONS[status].encode("ascii")
    body = b"%d %b\n" % (status, reason)
    closes = _CLOSES.get(status, b"Connection: close\r\n")
    fields = b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n%b" % (len(body), closes)
    head = b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, reason, stamp, fields)
    return head if bodiless else head + body
