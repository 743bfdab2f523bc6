"""What is left of requests that end early, and of processes that an application forks: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_for
from tests.support.worker_rig import Rig as AnyRig
from tests.worker.asgi.test_websocket import HANDSHAKE, frame

Scope = dict[str, Any]
Rig = partial(AnyRig, lifespan="off")
WITHIN = 60.0
GET = b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n"
STATES = (
    b"",
    b"GET / HT",
    GET % b"/hang",
    GET % b"/stream",
    GET % b"/" * 5,
    b"POST /read HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\nabc",
    HANDSHAKE,
    HANDSHAKE + frame(1, b"hello"),
)
"""What a client has sent when it is cut."""


async def answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def app(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            await send({"type": "websocket.send", "text": "x" * 1000})
        return
    path = scope["path"]
    if path == "/hang":
        while (await receive())["type"] != "http.disconnect":
            continue
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
            await asyncio.sleep(0)
    elif path == "/read":
        while (await receive()).get("more_body"):
            continue
    elif path == "/count":
        gc.collect()
        kinds = ("HttpCycle", "WebSocketCycle", "AsgiConnection", "Task")
        found = [type(one).__name__ for one in gc.get_objects() if type(one).__name__ in kinds]
        await answer(send, repr((len(asyncio.all_tasks()), sorted(found), len(os.listdir("/proc/self/fd")))).encode())
    else:
        await answer(send, b"hello")


def test_clients_that_are_cut_leave_nothing(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving()
        rig.get("/count")
        before = rig.get("/count").body
        for number in range(400):
            with rig.connect() as client:
                client.send(STATES[number % len(STATES)])
                if number % 3:
                    client.sock.settimeout(0.002)
                    with suppress(TimeoutError):
                        client.sock.recv(100)
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        rig.connections(0)
        wait_for(lambda: rig.get("/count").body == before, WITHIN)
        wait_for(lambda: rig.facts().busy == 0, WITHIN)
        rig.drain()
        assert rig.wait() == 0
        assert rig.log() == ""


def test_a_child_that_comes_back_from_the_application_ends(tmp_path: Path) -> None:
    async def forks(scope: Scope, receive: Any, send: Any) -> None:
        if scope["path"] == "/fork" and not os.fork():
            return  # the child, into the server's code
        await answer(send, str(os.getpid()).encode())

    with Rig(forks, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            assert client.get("/fork").body == str(rig.pid).encode()
            assert client.get("/").body == str(rig.pid).encode()
        wait_for(lambda: "came back out of the application's code" in rig.log(), WITHIN)
        rig.drain()
        assert rig.wait() == 0


def test_sigterm_drains(tmp_path: Path) -> None:
    async def slow(scope: Scope, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.5)
        await answer(send, b"hello")

    with Rig(slow, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(GET % b"/")
            wait_for(lambda: rig.facts().busy == 1, WITHIN)
            os.kill(rig.pid, signal.SIGTERM)
            answered = client.answer()
            assert (answered.status, answered.body) == (200, b"hello")
        assert rig.wait() == 0


def test_sigterm_in_the_startup_ends_the_worker(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    async def starts(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        begun.touch()
        await asyncio.sleep(3600)

    with AnyRig(starts, tmp_path) as rig:
        wait_for(begun.exists, WITHIN)
        os.kill(rig.pid, signal.SIGTERM)
        assert rig.wait() == 0


def test_tasks_that_the_application_began_are_cancelled_at_the_end_and_may_clean_up(tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    kept = set()

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            cleaned.touch()

    async def begins(scope: Scope, receive: Any, send: Any) -> None:
        kept.add(asyncio.create_task(work()))
        await answer(send, b"begun")

    with Rig(begins, tmp_path) as rig:
        rig.serving()
        assert rig.get().body == b"begun"
        rig.drain()
        assert rig.wait() == 0
        assert cleaned.exists()
        assert rig.log() == ""


def test_a_client_that_is_gone_before_100_continue_is_told_by_receive(tmp_path: Path) -> None:
    begun, reset, told = tmp_path / "begun", tmp_path / "reset", tmp_path / "told"

    async def blocks(scope: Scope, receive: Any, send: Any) -> None:
        begun.touch()
        wait_for(reset.exists, WITHIN)  # blocks the loop, which sees no end of a connection
        told.write_text((await receive())["type"])

    with Rig(blocks, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
            wait_for(begun.exists, WITHIN)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.touch()
        wait_for(told.exists, WITHIN)
        rig.connections(0)
        assert told.read_text() == "http.disconnect"
        assert rig.log() == ""


def test_a_reader_of_a_closed_descriptor_does_not_take_its_number_from_a_connection(tmp_path: Path) -> None:
    left: list[int] = []

    async def careless(scope: Scope, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        if scope["path"] == "/leave":
            ours, theirs = socket.socketpair()
            left.append(ours.fileno())
            loop.add_reader(left[0], print)
            theirs.close()
            ours.close()
        if scope["path"] == "/remove":
            loop.remove_reader(left[0])
        await answer(send, os.readlink(f"/proc/self/fd/{left[0]}").encode() if left[1:] else b"")
        left.append(0)

    with Rig(careless, tmp_path) as rig:
        rig.serving()
        with rig.connect() as first:
            first.get("/leave")
            with rig.connect() as other:
                assert other.get().body.startswith(b"socket:")  # the number is in use again
                assert first.get("/remove").status == 200
                assert other.get().status == 200
        rig.connections(0)
        assert rig.log() == ""
