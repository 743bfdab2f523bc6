"""A client of the control socket: connects, asks, waits for the answer. Blocking, one request at a time.

Prints nothing and knows no command line: any program can use it. Raises the errors of `srvd.errors` that the daemon
sent, or `NoDaemon` when there is none.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from srvd.client.find import listener_pid, start_hint
from srvd.errors import (
    CODES,
    BadArgs,
    BadFrame,
    Busy,
    NoDaemon,
    PermissionRefused,
    ProtocolMismatch,
    ShuttingDown,
    SrvdError,
    from_wire,
)  # fmt: skip
from srvd.wire import messages
from srvd.wire.codec import PROTOCOL, REQUESTS, RESPONSES, Decoder, encode

__all__ = ["Client", "OnProgress"]

OnProgress = Callable[[Mapping[str, Any]], None]
"""Called with each progress message: a map of operation, phase, done, total, message."""

PATIENCE = 20.0
"""Seconds of silence after which the client sends a ping; after as many more without an answer it gives up."""

CHUNK = 64 << 10
_TIMEVAL = struct.Struct("@ll")


class Client:
    """One connection. After an error of the connection (`NoDaemon`, `BadFrame`, …), make a new one."""

    __slots__ = ("_bye", "_decoder", "_inbox", "_last_id", "_pidfd", "_sock", "ended", "hello", "operation", "path",
                 "position")  # fmt: skip

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.path = path
        self.operation = 0  # the operation that the latest call waits or waited for
        self.position = -1  # number of the last event that `watch` has seen or skipped; -1: it has not begun
        self.ended = False  # the daemon has closed the connection
        self._sock = sock
        self._decoder = Decoder(RESPONSES)
        self._inbox: deque[dict[str, Any]] = deque()
        self._last_id = 0
        self._bye: dict[str, Any] = {}
        self._pidfd = -1
        self.hello = self._greet()

    @classmethod
    def connect(cls, path: str, timeout: float = 5.0) -> Client:
        """Connects, and reads the daemon's greeting, within about `timeout` seconds each.

        Raises `NoDaemon`, `Busy`, `PermissionRefused`, `ProtocolMismatch`, `BadFrame`, and `BadArgs` for a path that is
        too long.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # While the daemon's backlog is full, connect() waits up to SO_SNDTIMEO (unix(7)).
            limit = _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            _connect(sock, path)
            sock.settimeout(timeout)
            return cls(sock, path)
        except BaseException:
            sock.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def call(
        self,
        method: str,
        args: Mapping[str, Any] | None = None,
        *,
        deadline: float = 0.0,
        idem: str = "",
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Sends a request and returns its result.

        deadline: seconds after which the daemon answers `Deadline`; the operation goes on. 0: no limit.
        idem: see `messages.Request`.

        Raises the error that the daemon answered, or `NoDaemon` when it is gone or silent.
        """
        self.operation = 0
        number = self._request(method, args or {}, deadline, idem)
        return self._reply(number, on_progress)

    def watch(self, topics: Sequence[str] = (), since: int = 0, *, follow: bool = True) -> Iterator[dict[str, Any]]:
        """Yields events: maps of seq, at, topic, data, lost. Without `follow`, only those that the daemon has kept."""
        number = self._request("watch", {"topics": list(topics), "since": since}, 0.0, "")
        begun = self._reply(number, None)
        self.position = begun["newest"] if since < 0 else since
        while follow or self.position < begun["last"]:
            message = self._next(None)
            assert message is not None, "waited without a limit"
            if message.get("type") == "ev":
                self.position = message["seq"]
                yield message

    def watch_exit(self) -> None:
        """Opens a pidfd of the daemon, with which `wait_gone` sees its process end."""
        pid = listener_pid(self._sock)
        if pid and self._pidfd < 0:
            try:
                self._pidfd = os.pidfd_open(pid)
            except OSError:  # it has ended, or is in another pid namespace: wait for the end of file only
                return

    def wait_gone(self, timeout: float) -> bool:
        """Waits until the daemon has closed the connection and its process has ended. Returns False after `timeout`.

        Without `watch_exit`, waits for the connection only.
        """
        until = time.monotonic() + timeout
        try:
            while self._next(max(0.001, until - time.monotonic())) is not None:
                continue
        except (NoDaemon, ShuttingDown):
            if self._pidfd < 0:
                return True
            left = max(0.0, until - time.monotonic())
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            return bool(poller.poll(left * 1000))
        return False

    def _greet(self) -> messages.Hello:
        message = self._next(self._sock.gettimeout())
        if message is None:
            raise NoDaemon(f"connect to {self.path}: the daemon there does not answer", hint="is it stopped or stuck?")
        if message.get("type") == "bye":
            self._bye = message
            raise self._farewell()
        hello = messages.read_hello(message)
        if hello.protocol != PROTOCOL:
            raise ProtocolMismatch(
                f"connect to {self.path}: the daemon (srvd {hello.version}) speaks protocol {hello.protocol}, "
                f"this program {PROTOCOL}",
                hint="use the srvctl that was installed with the daemon",
            )
        return hello

    def _request(self, method: str, args: Mapping[str, Any], deadline: float, idem: str) -> int:
        self._last_id += 1
        wanted = messages.Request(self._last_id, method, dict(args), deadline, idem)
        try:
            frame = encode(messages.request(wanted), REQUESTS)
        except BadFrame as exc:
            raise BadArgs(f"call {method}: {exc.message}") from exc
        try:
            self._sock.sendall(frame)
        except OSError:
            # The daemon closed the connection, perhaps after a `bye` with the reason.
            while self._next(PATIENCE) is not None:
                continue
            raise NoDaemon(f"call {method}: {self.path} takes no requests") from None
        return self._last_id

    def _reply(self, number: int, on_progress: OnProgress | None) -> dict[str, Any]:
        asked = False
        while True:
            message = self._next(PATIENCE)
            if message is None:
                if asked:
                    raise NoDaemon(
                        f"the daemon at {self.path} does not answer any more", hint="is it stopped or stuck?"
                    )
                self._request("ping", {}, 0.0, "")
                asked = True
                continue
            asked = False
            if message.get("id") != number:
                continue
            match message.get("type"):
                case "ok":
                    return dict(message["result"])
                case "err":
                    raise from_wire(message["error"])
                case "progress":
                    self.operation = message["operation"]
                    if on_progress is not None:
                        on_progress(message)

    def _next(self, patience: float | None) -> dict[str, Any] | None:
        """Returns the next message; None after `patience` seconds of silence. Raises why the connection has ended."""
        self._sock.settimeout(patience)
        while not self._inbox:
            try:
                chunk = self._sock.recv(CHUNK)
            except TimeoutError:
                return None
            except OSError:
                chunk = b""
            if not chunk:
                self.ended = True
                raise self._farewell()
            self._inbox += self._decoder.feed(chunk)
        message = self._inbox.popleft()
        if message.get("type") == "bye":
            self._bye = message
        elif message.get("type") == "err" and message.get("id") == 0:
            raise from_wire(message["error"])
        return message

    def _farewell(self) -> SrvdError:
        """Returns the error for the end of the connection, by its last message."""
        reason, text = str(self._bye.get("reason", "")), str(self._bye.get("message", ""))
        if reason in CODES:
            return from_wire({"code": reason, "message": f"connect to {self.path}: {text}"})
        if reason:
            return ShuttingDown(f"the daemon at {self.path} ended the connection: {text}", detail={"reason": reason})
        return NoDaemon(f"the daemon at {self.path} is gone: it ended the connection without a word")


def _connect(sock: socket.socket, path: str) -> None:
    try:
        sock.connect(path)
    except OSError as exc:
        if exc.errno is None or exc.errno == errno.EINVAL:  # Python's own: "AF_UNIX path too long"
            raise BadArgs(f"connect to {path}: {exc}") from exc
        if exc.errno in (errno.EACCES, errno.EPERM):
            raise PermissionRefused(
                f"connect to {path}: your user may not",
                hint="root and the daemon's own user may; others by the setting `roles` of [control]",
            ) from exc
        if exc.errno == errno.EAGAIN:
            raise Busy(f"connect to {path}: too many others wait to be let in") from exc
        if exc.errno == errno.ECONNREFUSED:  # a stop removes the socket
            raise NoDaemon(
                f"connect to {path}: the daemon that listened there has died",
                hint="its workers serve on for orphan_timeout: start it again as before, and it adopts them",
            ) from exc
        raise NoDaemon(
            f"connect to {path}: {exc.strerror}",
            hint=start_hint(),
        ) from exc
