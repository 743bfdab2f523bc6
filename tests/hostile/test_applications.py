"""Claims about each abuse of a worker by its own application, alone: the daemon is as before, and the pool serves."""

from __future__ import annotations

import contextlib
import http.client

import pytest

from tests.conftest import Starter
from tests.hostile.abuses import ABUSES, PROGRAM
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", params=[1, 4], ids=["one thread", "four threads"])
def abused(request: pytest.FixtureRequest, module_starter: Starter) -> Srvd:
    settings = f'workers = 2\nthreads = {request.param}\nrequest_timeout = "1s"\ndrain_timeout = "2s"'
    return module_starter(config=toml(settings), code=PROGRAM)


@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abuse_costs_its_own_request_at_most(abused: Srvd, abuse: str) -> None:
    daemon = abused.pid
    connection = abused.connect(timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", f"/{abuse}")
        assert b"evil" not in connection.getresponse().read()
    abused.call("resume", pool="web")  # not as slowly as after so many deaths in a row
    wait_for(lambda: abused.is_ready() and len(abused.serving()) == 2, BOOT)
    with abused.client() as client:
        assert client.call("status")["daemon"]["pid"] == daemon
    answers = [_ask(abused) for _ in range(6)]
    assert answers[-4:] == ["ok"] * 4, answers
    assert "a bug in srvd" not in abused.logged()


def _ask(srvd: Srvd) -> str:
    """The body, or what came instead: a worker that the abuse has ended may end with the next request only."""
    try:
        return srvd.get()
    except (OSError, http.client.HTTPException, AssertionError) as error:
        return repr(error)
