"""One WebSocket by the convention of ASGI: from the opening handshake, which the application may refuse, to its end.

Has no socket: a `Wire` takes bytes and gives those of the client (`hear`). The protocol is in `http/ws/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from srvd.http.h1.response import ResponseInvalid, Status, check_fields
from srvd.http.ws.closing import State
from srvd.http.ws.codes import CloseCode
from srvd.http.ws.limits import Limits
from srvd.http.ws.reader import Closed
from srvd.http.ws.websocket import NotOpen, WebSocket
from srvd.worker.asgi.http import HttpCycle, Wire
from srvd.worker.asgi.incoming import Message
from srvd.worker.asgi.messages.response import Start, kind_of
from srvd.worker.asgi.ws.inbox import Inbox
from srvd.worker.net.errors import ReaderGone

if TYPE_CHECKING:
    from srvd.http.h1.head import Request
    from srvd.http.ws.handshake import Handshake
    from srvd.worker.asgi.application import AsgiApplication

__all__ = ["RESTART", "FrameWire", "WebSocketCycle"]

RESTART = 1012
"""The close code of a server that restarts; clients connect again (the registry of IANA)."""
_INTERNAL_ERROR = 1011
_DENIED: Message = {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]}
_SWITCHED = Start(Status(101, b"HTTP/1.1 101 Switching Protocols\r\n", bodiless=True), check_fields([]))
_DENIAL = "websocket.http.response"


class FrameWire(Wire, Protocol):
    """The side of the client, for one WebSocket."""

    def opened(self, cycle: WebSocketCycle) -> None:
        """The handshake is accepted: what the client sends from now on are frames."""

    def closing(self, cycle: WebSocketCycle) -> None:
        """A close frame was sent or has come: the other side's must follow soon."""

    def shut(self, cycle: WebSocketCycle) -> None:
        """The last frame was sent: the connection ends."""


class WebSocketCycle(HttpCycle):
    """An `HttpCycle` until the handshake is accepted. A refusal is a response of HTTP."""

    __slots__ = ("_frames", "_greeted", "_handshake", "_inbox", "_limits", "socket")

    def __init__(
        self,
        application: AsgiApplication,
        request: Request,
        wire: FrameWire,
        now: float,
        handshake: Handshake,
        limits: Limits,
    ) -> None:
        super().__init__(application, request, wire, now)
        self._frames = wire
        self._handshake = handshake
        self._limits = limits
        self._greeted = False  # the application was told of the handshake
        self._inbox = Inbox()
        self.socket: WebSocket | None = None
        """The WebSocket, once the handshake is accepted."""
        self.keep_alive = False
        scope = request.scope
        del scope["method"]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["subprotocols"] = [*handshake.subprotocols]
        scope["extensions"] = {_DENIAL: {}}

    @property
    def code(self) -> int:
        return super().code if self.socket is None else 101

    @property
    def opened(self) -> bool:
        return self.socket is not None or super().opened

    @property
    def reads_on(self) -> bool:
        """Whether more may be read."""
        return not self._inbox.full

    # The client's side

    def hear(self, data: bytes) -> None:
        """Takes bytes of the client."""
        socket = self.socket
        assert socket is not None
        events = socket.receive(data)
        while True:
            self._inbox.add(events)
            if not socket.has_more or not self.reads_on:
                break
            events = socket.receive(b"")
        if socket.state is State.CLOSED:  # the client has answered the close frame
            self._end()
        elif socket.state in (State.CLOSE_RECEIVED, State.FAILED):
            self._frames.closing(self)
        self.wake()

    def lose(self) -> None:
        self._events_end()
        super().lose()

    def restart(self) -> None:
        """Ends the WebSocket because the worker leaves."""
        self._close(RESTART, "the server restarts")
        self._put_end(Closed(RESTART, "the server restarts"))

    def give_up(self) -> None:
        """Ends the WebSocket without the client's close frame, for which it was waited."""
        socket = self.socket
        if socket is not None and socket.state in (State.CLOSE_RECEIVED, State.FAILED):
            self._answer_close()
        self._end()

    def ping(self) -> None:
        """Sends a ping. Raises `ReaderGone`."""
        if self.socket is not None and self.socket.state is State.OPEN:
            self.socket.release_memory()
            self._transmit(self.socket.ping())

    def pongs(self) -> None:
        """Answers the client's pings."""
        if self.socket is not None and (data := self.socket.pongs()):
            self._transmit(data)

    # The application's side

    async def receive(self) -> Message:
        if not self._greeted:
            self._greeted = True
            return {"type": "websocket.connect"}
        inbox = self._inbox
        while True:
            full = inbox.full
            content = inbox.take()
            if content is not None:
                break
            if inbox.end is not None or self.gone or self.ended:
                return self._disconnect(inbox.end or Closed(CloseCode.ABNORMAL, ""))
            await self._wait()
        over = self.gone or self.ended  # then nothing that was left behind is read any more
        if self.socket is not None and not over and self.reads_on and (full or self.socket.has_more):
            if self.socket.has_more:
                self.hear(b"")
            self._wire.want_body(self)
        return {"type": "websocket.receive", "text" if isinstance(content, str) else "bytes": content}

    async def send(self, message: Message) -> None:
        kind = kind_of(message)
        socket = self.socket
        if socket is None:
            await self._send_before(kind, message)
            return
        if kind == "websocket.send":
            data = _content_of(message)
            try:
                frame = socket.send(data)
            except NotOpen:
                raise self._not_open(kind) from None
            await self._pass_on(frame)
        elif kind == "websocket.close":
            if not self._close(message.get("code") or CloseCode.NORMAL, message.get("reason") or ""):
                raise self._not_open(kind)
        else:
            raise ResponseInvalid(f"{kind!r} does not belong to an open WebSocket")

    async def _send_before(self, kind: str, message: Message) -> None:
        """Takes a message before the handshake is accepted."""
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            await super().send(_DENIED)
            await super().send({"type": "http.response.body", "body": b"403 Forbidden\n"})
        elif kind.startswith(_DENIAL):
            await super().send({**message, "type": kind.removeprefix("websocket.")})
        else:
            raise ResponseInvalid(f"{kind!r} came before websocket.accept")

    def _accept(self, message: Mapping[str, Any]) -> None:
        if self.ended or self._start is not None:
            raise self._not_open("websocket.accept")
        try:
            headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message.get("headers") or ()]
        except (AttributeError, TypeError, ValueError) as exc:
            raise ResponseInvalid(f"headers are no list of (bytes, bytes): {exc}") from exc
        head = self._handshake.accept(self._application.stamp(), message.get("subprotocol"), headers)
        if self.gone:
            raise ReaderGone("the client is gone")
        self.socket = WebSocket(self._limits, self._handshake.agreement)
        self.head_size = len(head)
        self._start = _SWITCHED
        self._transmit(head)
        self._frames.opened(self)

    def _disconnect(self, closed: Closed) -> Message:
        if self.socket is not None and self.socket.state in (State.CLOSE_RECEIVED, State.FAILED):
            self._answer_close()
        return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}

    def _answer_close(self) -> None:
        """Sends the close frame that is owed to the client, and ends the connection."""
        assert self.socket is not None
        try:
            self._transmit(self.socket.close())
        except ReaderGone:
            return
        self._end()

    def _close(self, code: int, reason: str) -> bool:
        """Sends a close frame. Returns False if it is too late for one."""
        socket = self.socket
        if socket is None or self.ended:
            return False
        try:
            frame = socket.close(code, reason)
        except NotOpen:
            return False
        except ValueError as exc:
            raise ResponseInvalid(str(exc)) from None
        self._transmit(frame)
        if socket.state is State.CLOSED:
            self._end()
        else:
            self._frames.closing(self)
        return True

    def _transmit(self, data: bytes) -> None:
        self.sent += len(data)
        self._wire.send(self, data)

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._events_end()
            self._frames.shut(self)
            self.wake()

    def _events_end(self) -> None:
        if self.socket is not None and (closed := self.socket.end()) is not None:
            self._put_end(closed)

    def _put_end(self, closed: Closed) -> None:
        self._inbox.close(closed)
        self.wake()

    def _not_open(self, kind: str) -> Exception:
        """Returns what an application is told that sends too late: OSError if it was the client's end."""
        if self.gone or self._inbox.end is not None:
            return ReaderGone("the client is gone")
        return ResponseInvalid(f"{kind}: the WebSocket was closed")

    def _fail_silent(self) -> None:
        if self.socket is None:
            super()._fail_silent()
        else:
            self._close(CloseCode.NORMAL, "")

    def _end_failed(self) -> None:
        if self.socket is None:
            super()._end_failed()
        elif not self._close(_INTERNAL_ERROR, "") and not self.ended:
            self.give_up()


def _content_of(message: Message) -> str | bytes:
    """Returns the content of websocket.send. Raises `ResponseInvalid`."""
    text, data = message.get("text"), message.get("bytes")
    if isinstance(text, str):
        return text
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise ResponseInvalid("websocket.send has neither text nor bytes")
