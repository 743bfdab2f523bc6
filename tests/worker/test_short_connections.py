"""Claims about connections of one request: what the kernel is asked for them; no answer is lost by their end."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from srvd.config.settings import PoolSettings
from srvd.linux.scoreboard import Board
from srvd.log import Log
from srvd.worker.app.hooks import Hooks
from srvd.worker.boot import Preloaded
from srvd.worker.loop import Loop
from srvd.worker.net.acceptor import Acceptor, Listening
from srvd.worker.observe.recorder import Recorder
from srvd.worker.wsgi import serving
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client, Rig

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


class Watched:
    """An epoll that notes what is changed in it."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.changes: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        def changed(fd: int, *args: Any) -> None:
            self.changes.append((name, fd))
            getattr(self._epoll, name)(fd, *args)

        return changed if name in ("register", "modify", "unregister") else getattr(self._epoll, name)


class Small(NamedTuple):
    """A worker in this process, whose loop the test turns."""

    loop: Loop
    epoll: Watched
    listener: socket.socket

    def changes(self) -> list[str]:
        """What was changed in epoll, but for the listener."""
        return [name for name, fd in self.epoll.changes if fd != self.listener.fileno()]

    def turn_until_answered(self, client: socket.socket) -> bytes:
        """Turns the loop until the client has an answer, and returns it."""
        until = time.monotonic() + 60.0
        while time.monotonic() < until:
            self.loop.due_at(time.monotonic())
            self.loop.turn()
            if select.select([client], [], [], 0.0)[0]:
                return client.recv(65_536)
        raise AssertionError("no answer has come")


@pytest.fixture
def small() -> Iterator[Small]:
    loop, board = serving.make_loop(1), Board.create(1)
    watched = Watched(loop._epoll)
    loop._epoll = watched  # type: ignore[assignment]
    recorder = Recorder(board.lane(0), lambda: True)
    served = serving.prepare(Preloaded(hello, Hooks()), PoolSettings("web"), "web/1#1", loop, [recorder], Log(2))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = Acceptor(served.context, served.connect, Listening([listener]), 100)
        served.context.connections.on_left = acceptor.room
        acceptor.open()
        yield Small(loop, watched, listener)
        for connection in tuple(served.context.connections.all):
            connection.close(time.monotonic())
    loop.close()
    board.close()


def test_a_connection_of_one_request_is_never_in_epoll(small: Small) -> None:
    with socket.create_connection(small.listener.getsockname()) as client:
        client.sendall(LAST)
        assert small.turn_until_answered(client).endswith(b"\r\n\r\nhello")
        client.settimeout(60.0)
        assert client.recv(1) == b""  # closed at once, without a turn for the client's own end
    assert small.changes() == []


def test_a_connection_that_is_kept_is_registered_once(small: Small) -> None:
    with socket.create_connection(small.listener.getsockname()) as client:
        for _ in range(3):
            client.sendall(GET)
            assert small.turn_until_answered(client).endswith(b"\r\n\r\nhello")
        assert small.changes() == ["register"]


def test_a_client_that_sends_nothing_at_first_is_waited_for(small: Small) -> None:
    with socket.create_connection(small.listener.getsockname()) as client:
        for _ in range(3):
            small.loop.due_at(time.monotonic())
            small.loop.turn()
        assert small.changes() == ["register"]
        client.sendall(LAST)
        assert small.turn_until_answered(client).endswith(b"\r\n\r\nhello")


def waits(environ: Any, start_response: Any) -> list[bytes]:
    """Answers when the client has sent more than its request."""
    folder = Path(environ["HTTP_X_FOLDER"])
    (folder / "called").touch()
    wait_for((folder / "sent").exists)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


@pytest.mark.parametrize("unix", [False, True])
def test_an_answer_is_not_lost_by_bytes_after_the_last_request(tmp_path: Path, unix: bool) -> None:
    with Rig(waits, tmp_path, unix=unix) as rig:
        rig.serving()
        with Client(rig.listener.getsockname()) as client:
            client.send(LAST.replace(b"\r\n\r\n", f"\r\nX-Folder: {tmp_path}\r\n\r\n".encode()))
            wait_for((tmp_path / "called").exists)
            client.send(b"\r\n" * 1_000)
            (tmp_path / "sent").touch()
            # A close with unread bytes would be a reset, and the client would find it in place of the answer.
            assert client.answer().body == b"hello"
            assert client.sock.recv(1) == b""
