"""The lifespan of an application of ASGI: before the first request, and after the last one."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from srvd.wire import links
from tests.support.waiting import wait_for
from tests.support.worker_rig import Rig

Scope = dict[str, Any]
WITHIN = 30.0


async def answer(send: Any, text: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


class Shop:
    """Writes what happens into a file."""

    def __init__(self, diary: Path) -> None:
        self.diary = diary
        self.variable: ContextVar[str] = ContextVar("variable", default="none")

    def note(self, text: str) -> None:
        with self.diary.open("a") as file:
            file.write(f"{text}\n")

    async def lifespan(self, scope: Scope, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        await asyncio.sleep(0.05)
        scope["state"]["items"] = ["one"]
        self.variable.set("of the lifespan")
        self.note("started")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await asyncio.sleep(0.05)
        self.note("ended")
        await send({"type": "lifespan.shutdown.complete"})

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
            return
        text = f"{scope['state']} {self.variable.get()}"
        self.variable.set("of a request")
        scope["state"]["mine"] = True
        if scope["path"] == "/slow":
            await asyncio.sleep(0.5)
        self.note("answered")
        await answer(send, text)


def test_it_begins_before_the_first_request_and_ends_after_the_last(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    with Rig(Shop(diary), tmp_path) as rig:
        assert rig.hear() == links.Ready()
        assert diary.read_text() == "started\n"
        rig.say(links.Serve())
        assert rig.hear() == links.Serving()
        for _ in range(2):  # each request has its own state and context
            assert rig.get().body == b"{'items': ['one']} of the lifespan"
        with rig.connect() as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n")
            wait_for(lambda: rig.facts().busy == 1, WITHIN)
            rig.drain()
            assert client.answer().status == 200
        assert rig.wait() == 0
        assert diary.read_text().splitlines() == ["started", *["answered"] * 3, "ended"]
        assert rig.log() == ""


async def without(scope: Scope, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await answer(send, repr("state" in scope))


async def naive(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await answer(send, repr("state" in scope))


async def silent(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await answer(send, repr("state" in scope))


@pytest.mark.parametrize("app", [without, naive, silent])
def test_an_application_without_a_lifespan_is_served(tmp_path: Path, app: Any) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving()
        assert rig.get().body == b"False"
        rig.drain()
        assert rig.wait() == 0
        assert rig.log() == ""


async def fails(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def raises(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("no database")


async def leaves(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    raise SystemExit("no database")


@pytest.mark.parametrize("app", [fails, raises, leaves])
def test_a_startup_that_fails_is_told_and_nothing_is_served(tmp_path: Path, app: Any) -> None:
    with Rig(app, tmp_path) as rig:
        said = rig.hear()
        assert isinstance(said, links.Failed)
        assert "no database" in str(said)
        assert ("Traceback" in str(said)) == (app is not fails)
        assert rig.wait() == 1


def test_one_that_is_demanded_has_to_be_there(tmp_path: Path) -> None:
    with Rig(without, tmp_path, lifespan="on") as rig:
        assert isinstance(rig.hear(), links.Failed)
        assert rig.wait() == 1


def test_one_that_is_off_is_not_asked_for(tmp_path: Path) -> None:
    with Rig(raises, tmp_path, lifespan="off") as rig:
        rig.serving()
        assert rig.get().status == 500


def test_a_shutdown_that_fails_or_hangs_is_logged_and_ends(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise ValueError("lost the database")

    with Rig(app, tmp_path) as rig:
        rig.serving()
        rig.drain()
        assert rig.wait() == 0
        assert "the application's shutdown failed" in rig.log()
        assert "ValueError: lost the database" in rig.log()


@pytest.mark.slow
def test_a_shutdown_that_hangs_is_bounded(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(3600)

    with Rig(app, tmp_path) as rig:
        rig.serving()
        rig.drain()
        assert rig.wait() == 0
        assert "has not ended within 5 s" in rig.log()


def test_system_exit_in_a_task_of_the_application_ends_neither_startup_nor_shutdown(tmp_path: Path) -> None:
    ended = tmp_path / "ended"

    async def leave() -> None:
        raise SystemExit(3)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        kept = []
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            kept.append(asyncio.create_task(leave()))
            await asyncio.sleep(0.05)
            await send({"type": f"lifespan.{kind}.complete"})
        ended.touch()

    with Rig(app, tmp_path) as rig:
        rig.serving()
        rig.drain()
        assert rig.wait() == 0
        assert ended.exists()
