"""Claims about max_connections: connections that are silent make room for clients that ask."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Starter
from tests.support.waiting import stays
from tests.support.worker_rig import Client, Rig

LONG: dict[str, Any] = {"header_timeout": 600.0, "keepalive_timeout": 600.0, "body_timeout": 600.0}
"""Times that no test waits for: what ends earlier has made room."""
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BEGUN = {
    "nothing": b"",
    "empty lines": b"\r\n",
    "a byte": b"G",
    "a part of a head": b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
    "a part of a body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx",
}

LATER = pytest.mark.slow
"""A connection that has begun a request goes later than one that has said nothing: after some seconds of waiting."""


def app(environ: dict[str, Any], start: Any) -> list[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"x" * 20_000_000 if environ["PATH_INFO"] == "/big" else b"ok"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sent", [pytest.param(sent, marks=LATER if BEGUN[sent].strip() else ()) for sent in BEGUN])
def test_silent_connections_make_room_for_one_that_asks(tmp_path: Path, sent: str, threads: int) -> None:
    with Rig(app, tmp_path, max_connections=3, threads=threads, **LONG) as rig, ExitStack() as stack:
        rig.serving()
        silent = [stack.enter_context(rig.connect()).send(BEGUN[sent]) for _ in range(5)]
        for _ in range(3):  # each in the place of one more
            assert stack.enter_context(rig.connect()).get().body == b"ok"
        # The longest-silent ones have gone: those two that waited in the backlog came last.
        for client in silent[:3]:
            client.rest()
        assert "those that are silent for longest are closed" in rig.log()


@pytest.mark.parametrize("unlimited", [False, True])
def test_the_longest_silent_one_goes_and_no_other(tmp_path: Path, unlimited: bool) -> None:
    times = {**LONG, "header_timeout": 0.0} if unlimited else LONG
    with Rig(app, tmp_path, max_connections=3, **times) as rig, ExitStack() as stack:
        rig.serving()
        first, second, third = (stack.enter_context(rig.connect()) for _ in range(3))
        rig.connections(3)
        for client in (second, third):
            assert client.get().body == b"ok"
        assert stack.enter_context(rig.connect()).get().body == b"ok"
        assert first.ended()
        for client in (second, third):
            assert client.get().body == b"ok"


@LATER
def test_an_idle_connection_goes_before_one_that_has_begun_to_ask(tmp_path: Path) -> None:
    with Rig(app, tmp_path, max_connections=2, **LONG) as rig, rig.serving().connect() as begun, rig.connect() as idle:
        begun.send(BEGUN["a part of a body"])
        assert idle.get().body == b"ok"
        time.sleep(6)  # both may go now: no claim about time
        with rig.connect() as client:
            assert client.get().body == b"ok"
            assert idle.ended()
            assert begun.send(b"12345678").answer().body == b"ok"


def test_connections_that_are_answered_stay_whatever_waits(tmp_path: Path) -> None:
    with Rig(app, tmp_path, max_connections=2, send_timeout=600.0, **LONG) as rig, ExitStack() as stack:
        rig.serving()
        readers = [stack.enter_context(rig.connect()).send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(2)]
        rig.connections(2)
        waiting = stack.enter_context(rig.connect()).send(REQUEST)
        assert stays(lambda: rig.facts().connections == 2 and rig.facts().requests < 3, 2)
        assert len(readers[0].answer().body) == 20_000_000
        assert waiting.answer().body == b"ok"
        assert len(readers[1].answer().body) == 20_000_000


@pytest.mark.slow
def test_a_flood_of_silent_connections_keeps_no_client_waiting(tmp_path: Path) -> None:
    with Rig(app, tmp_path, max_connections=20, **LONG) as rig, ExitStack() as stack:
        rig.serving()
        for _ in range(5):
            for _ in range(30):
                stack.enter_context(rig.connect())
            assert stack.enter_context(rig.connect()).get().body == b"ok"


@pytest.mark.system
def test_idle_connections_stay_while_another_worker_has_room(starter: Starter) -> None:
    srvd = starter(
        config="""
[listeners.web]
bind = ["127.0.0.1:0"]
[pools.web]
app = "app:app"
workers = 2
max_connections = 2
keepalive_timeout = "10m"
""",
        code="def app(environ, start):\n    start('200 OK', [])\n    return [b'ok']\n",
    )
    with ExitStack() as stack:
        idle = [stack.enter_context(Client(srvd.address())) for _ in range(3)]
        for client in idle:
            assert client.get().body == b"ok"
        time.sleep(1.5)  # silent for long enough, were there no room
        with Client(srvd.address()) as more:
            assert more.get().body == b"ok"
        for client in idle:
            assert client.get().body == b"ok"
