"""A real worker for tests: forked, with a listener, a link and a scoreboard, and a client that speaks raw bytes.

Not a daemon: the test itself gives the orders.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from srvd.config.settings import PoolSettings
from srvd.ids import WorkerId
from srvd.linux import fds
from srvd.linux.processes.process import reset_signals
from srvd.linux.scoreboard import Bell, Board, LaneFacts, lanes_of
from srvd.wire import links
from srvd.worker.boot import Boot
from srvd.worker.main import serve
from srvd.worker.net.acceptor import Listening
from srvd.worker.net.front import Front
from tests.support.waiting import wait_for

_WITHIN = 60.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # lower-case names
    body: bytes
    raw: bytes


class Client:
    """One connection, with whatever bytes one likes on it."""

    def __init__(self, address: Any) -> None:
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.sock.settimeout(_WITHIN)
        self.sock.connect(address)
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> Self:
        self.sock.sendall(data)
        return self

    def read_until(self, end: bytes) -> bytes:
        """Up to and with `end`; `EOFError` if the connection ends before it."""
        while end not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(end)
        return found + end

    def read(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def rest(self) -> bytes:
        """Everything up to the end of the connection, which must come."""
        pieces = [self.buffer]
        while data := self.sock.recv(1 << 20):
            pieces.append(data)
        self.buffer = b""
        return b"".join(pieces)

    def ended(self) -> bool:
        """Whether the server has closed, and said nothing more."""
        try:
            return self.buffer == b"" and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def answer(self, *, bodiless: bool = False) -> Answer:
        """The next response, by its own framing."""
        head = self.read_until(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [^\r\n]*", first)
        assert match, first
        headers = {}
        for line in lines:
            name, _, value = line.partition(b": ")
            assert name.lower().decode() not in headers, line
            headers[name.lower().decode()] = value.decode("latin-1")
        status = int(match[1])
        body = b"" if bodiless or status in (204, 304) or status < 200 else self._body(headers)
        return Answer(status, headers, body, head)

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(self.read_until(b"\r\n"), 16):
                pieces.append(self.read(size))
                assert self.read(2) == b"\r\n"
            assert self.read(2) == b"\r\n"
            return b"".join(pieces)
        if "content-length" in headers:
            return self.read(int(headers["content-length"]))
        return self.rest()

    def get(self, path: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> Answer:
        """One request on this connection, and its response."""
        head = "\r\n".join([f"{method} {path} HTTP/{version}", "Host: test", *fields])
        return self.send(f"{head}\r\n\r\n".encode("latin-1")).answer(bodiless=method == "HEAD")


class Rig:
    """The worker's process and everything that it is connected to. Use it as a context."""

    def __init__(
        self,
        app: object,
        tmp_path: Path,
        *,
        load: Callable[[], object] | None = None,
        unix: bool = False,
        front: Front | None = None,
        **settings: Any,
    ) -> None:
        self.stderr = tmp_path / "stderr"
        self.listener = _unix_listener(tmp_path) if unix else socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = self.listener.getsockname()
        self.bell = Bell.create()
        lanes = lanes_of(settings.get("threads", 1))
        self.board = Board.attach(Board.create(2, lanes).fd, lanes, self.bell.fd)
        self.link, theirs = fds.link_pair()
        self.link.settimeout(_WITHIN)
        self._boot = Boot(
            id=WorkerId("web", 1, 3),
            board=self.board,
            slot=0,
            link=theirs,
            listening=Listening([self.listener], [front]),
            application=load or (lambda: app),
            settings=PoolSettings(name="web", **settings),
        )
        self.pid = self.fork(theirs)
        self.exit_code: int | None = None
        theirs.close()

    def fork(self, link: socket.socket) -> int:
        """One more worker process with this end of a link."""
        pid = os.fork()
        if pid:
            return pid
        try:
            reset_signals()
            stderr = os.open(self.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(stderr, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            self.link.close()
            code = serve(self._boot._replace(link=link))
            sys.stderr.flush()
            os._exit(code)
        except BaseException as exc:
            os.write(2, f"the rig failed: {exc!r}\n".encode())
        finally:
            os._exit(99)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.link.close()
        self.listener.close()
        self.board.close()
        self.bell.close()

    def hear(self) -> links.Message:
        return links.decode(self.link.recv(links.LIMIT), links.FROM_WORKER)

    def says(self, kind: type[links.Message]) -> bool:
        """Whether the next message is of that kind. A worker that was told to drain says `Closed` first."""
        message = self.hear()
        while isinstance(message, links.Closed) and kind is not links.Closed:
            message = self.hear()
        return isinstance(message, kind)

    def say(self, message: links.Message) -> None:
        self.link.send(links.encode(message))

    def serving(self) -> Self:
        """Past its boot, and accepting."""
        assert self.says(links.Ready)
        self.say(links.Serve())
        assert self.says(links.Serving)
        return self

    def drain(self, seconds: float = 10.0, *, leaving: bool = False, left_over: Sequence[int] = ()) -> None:
        self.say(links.Drain(seconds, leaving, list(left_over)))

    def connect(self) -> Client:
        return Client(self.address)

    def get(self, path: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> Answer:
        with self.connect() as client:
            return client.get(path, *fields, method=method, version=version)

    def facts(self) -> LaneFacts:
        return self.board.read(0)

    def connections(self, count: int) -> None:
        """Wait until the worker holds so many."""
        wait_for(lambda: self.facts().connections == count, _WITHIN)

    def wait(self, within: float = _WITHIN) -> int:
        """The exit code, once it has left."""

        def left() -> bool:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.exit_code = os.waitstatus_to_exitcode(status)
            return self.exit_code is not None

        wait_for(left, within)
        assert self.exit_code is not None
        return self.exit_code

    def log(self) -> str:
        return self.stderr.read_text(errors="replace") if self.stderr.exists() else ""


def _unix_listener(tmp_path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "web.sock"))
    listener.listen(512)
    return listener
