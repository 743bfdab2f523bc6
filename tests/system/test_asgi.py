"""Applications of ASGI as people write them, in a whole daemon: served, reloaded under load, ended."""

from __future__ import annotations

import contextlib
import http.client
import json
from functools import partial

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.conftest import Starter
from tests.support.apps import asgi
from tests.support.daemon import toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


@pytest.fixture(params=["bare", "starlette", "fastapi"])
def name(request: pytest.FixtureRequest) -> str:
    if request.param != "bare":
        pytest.importorskip(request.param)
    return str(request.param)


def test_no_request_is_lost_in_reloads(starter: Starter, name: str) -> None:
    srvd = starter(code=asgi.source(name))
    with srvd.under_load() as load:
        for release in ("two", "three"):
            srvd.deploy(asgi.source(name, release))
            srvd.ctl("reload")
            wait_for(partial(load.releases.__contains__, release), within=60)
        srvd.ctl("scale", "4")
        load.more()
        srvd.ctl("scale", "1")
        load.more()
    assert load.failed == []
    assert load.releases == {"one", "two", "three"}
    assert srvd.stop() == 0
    assert "ERROR" not in srvd.logged()


def test_a_reload_ends_event_streams_and_their_generators_clean_up(starter: Starter) -> None:
    pytest.importorskip("starlette")
    srvd = starter(config=toml("workers = 1"), code=asgi.source("starlette"))
    connection = srvd.connect()
    connection.request("GET", "/events")
    response = connection.getresponse()
    assert response.read(13) == b"data: event\n\n"
    assert srvd.ctl("reload").returncode == 0
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
    wait_for((srvd.folder / "cleaned").exists, 30)
    wait_for(lambda: srvd.names() == {"web/2#2"}, 30)
    assert "ERROR" not in srvd.logged()


def test_a_reload_closes_each_websocket_with_1012(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\ndrain_timeout = "8s"'), code=asgi.source("bare"))
    host, port = srvd.address("web")
    url = f"ws://{host}:{port}/"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(url, proxy=None, open_timeout=60)) for _ in range(20)]
        for client in clients:
            client.send("hello")
            assert client.recv(60) == "hello"
        assert srvd.ctl("reload").returncode == 0
        for client in clients:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(60)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        wait_for(lambda: srvd.names() == {"web/2#3", "web/2#4"}, 60)
    assert "ERROR" not in srvd.logged()


@pytest.mark.parametrize("preload", ["on", "off"])
def test_threads_are_told_to_have_no_effect(starter: Starter, preload: str) -> None:
    srvd = starter(config=toml(f'workers = 1\nthreads = 2\npreload = "{preload}"'), code=asgi.source("bare"))
    srvd.wait_logged("threads = 2 has no effect: an ASGI application runs in one event loop")


@pytest.mark.parametrize("name", ["starlette", "fastapi"])
def test_a_framework_serves(starter: Starter, name: str) -> None:
    pytest.importorskip(name)
    srvd = starter(code=asgi.source(name))
    client = srvd.connect()

    def ask(path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, bytes]:
        client.request("GET" if body is None else "POST", path, body, {"Content-Type": kind})
        response = client.getresponse()
        return response.status, response.read()

    assert ask("/")[1].startswith(b"one web/1#")
    upload = b"\0\xff" * 1_000_000
    assert ask("/echo", upload) == (200, upload)
    assert ask("/stream") == (200, b"x" * 1_000_000)
    assert ask("/file")[1].decode() == (srvd.folder / "app.py").read_text()
    assert ask("/absent")[0] == 404
    assert ask("/fail")[0] == 500
    assert ask("/")[0] == 200
    if name == "fastapi":
        assert json.loads(ask("/items", b'{"name": "a", "price": 2.5}')[1]) == {"name": "a", "total": 5.0}
        assert ask("/items", b'{"name": 1}')[0] == 422
        assert b"Swagger" in ask("/docs")[1]
    else:
        assert ask("/back") == (200, b"ok")
        wait_for((srvd.folder / "worked").exists, 30)
    client.close()
    assert srvd.stop() == 0
    assert srvd.logged().count("ValueError: mine") >= 1


def test_a_startup_that_fails_refuses_the_generation_with_its_traceback(starter: Starter) -> None:
    srvd = starter(code=asgi.source("bare"))
    broken = "async def app(scope, receive, send):\n    await receive()\n    raise ValueError('no database')\n"
    srvd.deploy(broken)
    refused = srvd.ctl("reload")
    assert refused.returncode != 0
    assert "ValueError: no database" in refused.stdout + refused.stderr
    assert srvd.get().startswith("one ")


def test_a_pool_of_wsgi_imports_no_asyncio(starter: Starter) -> None:
    srvd = starter(
        code="import sys\n"
        "def app(environ, start):\n"
        "    start('200 OK', [])\n"
        "    return [repr('asyncio' in sys.modules).encode()]\n"
    )
    assert srvd.get() == "False"


def test_a_blocked_loop_is_found_from_outside(starter: Starter) -> None:
    config = toml("workers = 1\nrequest_timeout = 1\ndrain_timeout = 2")
    srvd = starter(config=config, code=asgi.source("bare"))
    first = srvd.get().split()[1]
    connection = srvd.connect()
    connection.request("GET", "/block/3600")
    srvd.wait_serving(1, without=first)
    assert srvd.get().split()[1] != first
    connection.close()


def test_a_long_stream_that_goes_on_and_a_quiet_event_stream_are_not_overdue(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1\nrequest_timeout = 1"), code=asgi.source("bare"))
    connection = srvd.connect()
    connection.request("GET", "/stream/20")  # a part each 0.2 s
    response = connection.getresponse()
    assert len(response.read()) == 20 * len(b"data: event\n\n")
    connection.request("GET", "/quiet/5")  # an event stream may be silent
    assert connection.getresponse().read() == b"data: event\n\n"
    connection.close()
    assert srvd.get().split()[1] == "web/1#1"
    assert srvd.deaths() == []


def test_a_task_that_refuses_to_end_costs_the_worker(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1\nrequest_timeout = 1\ndrain_timeout = 2"), code=asgi.source("bare"))
    connection = srvd.connect()
    connection.request("GET", "/stubborn")
    assert connection.getresponse().status == 504
    connection.close()
    assert srvd.get().split()[1] == "web/1#1"  # it costs nothing before the worker leaves
    assert srvd.stop() == 0


LAGS = """
import asyncio, time
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    assert scope["type"] == "http"
    if scope["path"] == "/lag":
        time.sleep(0.4)
    if scope["path"] == "/wait":
        await asyncio.sleep(1000)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def test_what_is_in_flight_and_the_lag_of_the_loop_are_shown(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\ndrain_timeout = "1s"'), code=LAGS)

    def shown() -> tuple[int, int]:
        (worker,) = srvd.call("workers")["workers"]
        return worker["in_flight"], worker["websockets"]

    assert srvd.get() == "ok"
    assert shown() == (0, 0)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            host, port = srvd.address()
            stack.enter_context(connect(f"ws://{host}:{port}/"))
        waiting = [srvd.connect() for _ in range(3)]
        for connection in waiting:
            stack.callback(connection.close)
            connection.request("GET", "/wait")
        wait_for(lambda: shown() == (5, 2))
        assert srvd.get("/lag") == "ok"
        wait_for(lambda: srvd.call("workers")["workers"][0]["loop_lag_s"] >= 0.4)
        head, row = srvd.ctl("workers").stdout.splitlines()
        assert {"IN_FLIGHT", "WEBSOCKETS", "LAG"} <= set(head.split())
        assert " 5 " in row
    wait_for(lambda: shown()[1] == 0)
