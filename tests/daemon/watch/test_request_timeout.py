"""A request is late when its application gives nothing; what else its worker has then is finished."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

CODE = """
import time

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    _, kind, seconds = environ["PATH_INFO"].split("/")
    return stream(kind, float(seconds))

def stream(kind, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield b"event\\n"
        time.sleep(0.2)
    if kind == "hang":
        time.sleep(3600)
    yield b"end\\n"
"""
LIMITS = 'workers = 1\nrequest_timeout = "2s"\nthreads = '


@pytest.mark.parametrize("threads", [1, 4])
def test_a_stream_that_gives_something_lives_longer_than_the_limit(starter: Starter, threads: int) -> None:
    srvd = starter(config=toml(f"{LIMITS}{threads}"), code=CODE)
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(srvd.get, "/give/7") for _ in range(min(threads, 2))]
        assert all(stream.result(60).endswith("event\nend\n") for stream in streams)
    assert srvd.deaths() == []
    assert srvd.names() == {"web/1#1"}


def test_the_other_requests_of_a_stuck_worker_are_finished_and_then_it_ends(starter: Starter) -> None:
    """Neither are they cut after some seconds, nor is the stuck one waited for when they are done."""
    srvd = starter(config=toml(f'{LIMITS}4\ndrain_timeout = "300s"'), code=CODE)
    with ThreadPoolExecutor(4) as pool:
        hung = pool.submit(srvd.get, "/hang/0")
        others = [pool.submit(srvd.get, f"/give/{seconds}") for seconds in (9, 12)]
        assert all(stream.result(60).endswith("event\nend\n") for stream in others)
        assert _ends(srvd) == "GET /hang/0"
        assert isinstance(hung.exception(30), (http.client.HTTPException, OSError))


def test_a_stuck_worker_that_has_nothing_else_ends_when_its_replacement_serves(starter: Starter) -> None:
    srvd = starter(config=toml(f'{LIMITS}1\ndrain_timeout = "300s"'), code=CODE)
    with ThreadPoolExecutor(4) as pool:
        hung = pool.submit(srvd.get, "/hang/3")  # it gives something first
        began = time.monotonic()
        assert _ends(srvd) == "GET /hang/3"
        assert time.monotonic() - began > 4.0  # 3 s of events, and the limit
        assert isinstance(hung.exception(30), (http.client.HTTPException, OSError))
    srvd.wait_logged("web/1#1 has given nothing to GET /hang/3 for 2 s")


def _ends(srvd: Srvd) -> str:
    """The request that the first worker was in when it ended for its lateness, long before drain_timeout."""
    (death,) = wait_for(srvd.deaths, within=60)
    assert (death["worker"], death["cause"]) == ("web/1#1", "request_timeout")
    return str(death["request"])
