"""A small server that puts the WebSocket protocol on plain sockets, a thread for each: it sends back each message.

    python -m tests.support.websocket_server PORT [no-deflate]

serves on that port until its standard input ends; this is what Autobahn|Testsuite is run against.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from srvd.http.h1.guard import Line
from srvd.http.h1.head import HeadReader, Request
from srvd.http.h1.limits import Limits as HeadLimits
from srvd.http.h1.reader import Inbound
from srvd.http.h1.refusal import Refusal, answer
from srvd.http.h1.sink import Client, Ends, Fields, Scope
from srvd.http.ws.closing import State
from srvd.http.ws.extensions import Deflate
from srvd.http.ws.handshake import Handshake, asks_for_websocket, judge
from srvd.http.ws.limits import Limits
from srvd.http.ws.reader import Closed, Pong
from srvd.http.ws.websocket import WebSocket

STAMP = b"Server: srvd\r\nDate: Mon, 30 Nov 2026 12:00:00 GMT\r\n"
_READ = 65_536
_PATIENCE = 60.0
"""Seconds that a client may say nothing."""


class FieldSink:
    """A sink of heads whose scopes hold the target and the fields as they came."""

    def connection(self, ends: Ends) -> Scope:
        return {"scheme": ends.scheme}

    def line(self, line: Line) -> Scope:
        return {"target": line.target}

    def fields(self, fields: Fields) -> Scope:
        return {"fields": tuple(fields)}

    def field(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        return name, value

    def section(self, parts: list[tuple[bytes, bytes]]) -> Scope:
        return {"fields": tuple(parts)}

    def scheme(self, scope: Scope) -> str:
        return str(scope["scheme"])

    def put_host(self, scope: Scope, host: str) -> None:
        scope["host"] = host

    def put_client(self, scope: Scope, client: Client) -> None:
        scope["client"] = client


def inbound() -> Inbound:
    """Reads the head of one connection, as srvd does."""
    sink = FieldSink()
    return Inbound(HeadReader(HeadLimits(), sink), sink.connection(Ends()))


def judged(request: Request, deflate: Deflate | None) -> Handshake:
    """The opening handshake of a request. Raises `Refusal`."""
    fields = request.scope["fields"]
    if not asks_for_websocket(request, fields):
        raise Refusal(426, "no WebSocket was asked for")
    return judge(request, fields, deflate)


class EchoServer:
    """Accepts until `close`. `deflate`: the compression that it would like."""

    def __init__(self, port: int = 0, deflate: Deflate | None = None, limits: Limits | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._deflate = deflate
        self._limits = limits or Limits()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(_PATIENCE)
        with closing(sock), suppress(OSError):
            websocket, early = self._open(sock)
            if websocket is not None:
                _echo(sock, websocket, early)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(_READ):  # what is not read would reset the connection, and the last frame with it
                pass

    def _open(self, sock: socket.socket) -> tuple[WebSocket | None, bytes]:
        reader = inbound()
        try:
            while (request := reader.receive(data := sock.recv(_READ))) is None:
                if not data:
                    return None, b""
            handshake = judged(request, self._deflate)
        except Refusal as refusal:
            sock.sendall(answer(refusal.status, STAMP))
            return None, b""
        sock.sendall(handshake.accept(STAMP, next(iter(handshake.subprotocols), None)))
        return WebSocket(self._limits, handshake.agreement), bytes(reader.rest)


def _echo(sock: socket.socket, websocket: WebSocket, data: bytes) -> None:
    while True:
        for event in websocket.receive(data):
            sock.sendall(websocket.pongs())
            if isinstance(event, Closed):
                if websocket.state is not State.CLOSED:
                    sock.sendall(websocket.close())
                return
            if not isinstance(event, Pong):
                sock.sendall(websocket.send(event))
        sock.sendall(websocket.pongs())
        data = b""
        if not websocket.has_more and not (data := sock.recv(_READ)):
            websocket.end()
            return


@contextmanager
def echo_server(deflate: Deflate | None = None, limits: Limits | None = None) -> Iterator[EchoServer]:
    server = EchoServer(0, deflate, limits)
    try:
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    EchoServer(int(sys.argv[1]), None if "no-deflate" in sys.argv[2:] else Deflate())
    sys.stdin.read()
