"""Probes and warming know no calling convention: they go on when a reply comes, at once or later."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from srvd.config.settings import PoolSettings
from srvd.http.h1.head import Request
from srvd.linux.scoreboard import Board
from srvd.log import Log
from srvd.wire.links import Probed
from srvd.worker.context import WorkerContext
from srvd.worker.loop import Loop
from srvd.worker.net.responder import Reply
from srvd.worker.observe.recorder import Recorder
from srvd.worker.stamp import ClockStamp
from srvd.worker.supervision import warming
from srvd.worker.supervision.probe import probe
from srvd.worker.wsgi.convention import Wsgi

FINE = Reply(200, "200 OK", "", "")


class Later(Wsgi):
    """A convention whose application replies when the test says so, as one with an event loop does."""

    def __init__(self) -> None:
        stamp = ClockStamp().now
        super().__init__(lambda environ, start: [], PoolSettings("web"), "web/1#1", None, Log(2), stamp)
        self.asked: list[tuple[Request, Callable[[Reply], None]]] = []

    def ask(self, request: Request, replied: Callable[[Reply], None]) -> None:
        self.asked.append((request, replied))


@pytest.fixture
def later() -> Later:
    return Later()


@pytest.fixture
def context(later: Later) -> Iterator[WorkerContext]:
    board = Board.create(1)
    recorder = Recorder(board.lane(0), lambda: True)
    yield WorkerContext(later, PoolSettings("web"), Loop(), recorder, Log(2), ClockStamp().now)
    board.close()


def test_a_probe_is_answered_when_its_reply_comes(context: WorkerContext, later: Later) -> None:
    told: list[Probed] = []
    probe(context, "https://shop.test/healthz?full=1", ("200-299",), told.append)
    ((request, reply),) = later.asked
    assert request.scope["HTTP_HOST"] == "shop.test"
    assert request.scope["wsgi.url_scheme"] == "https"
    assert request.label == "GET /healthz"
    assert told == []
    reply(FINE)
    assert told == [Probed(True, "GET /healthz?full=1: 200 OK")]


def test_a_reply_that_failed_or_redirects_is_explained(context: WorkerContext, later: Later) -> None:
    told: list[Probed] = []
    for reply in (
        Reply(500, "500 Internal Server Error", "", "ZeroDivisionError: division by zero"),
        Reply(302, "302 Found", "Location: /login\r\n", ""),
    ):
        probe(context, "/", ("200-299",), told.append)
        later.asked.pop()[1](reply)
    assert [probed.healthy for probed in told] == [False, False]
    assert "ZeroDivisionError" in told[0].text
    assert "to /login" in told[1].text


def test_what_is_no_request_is_told_at_once(context: WorkerContext, later: Later) -> None:
    told: list[Probed] = []
    probe(context, "/with space", ("200-299",), told.append)
    assert later.asked == []
    assert told[0].healthy is False


def test_warming_is_over_after_the_last_reply(context: WorkerContext, later: Later) -> None:
    over: list[bool] = []
    warming.ask(context, ["/a", "/b"], lambda: over.append(True))
    assert [request.label for request, _ in later.asked] == ["GET /a", "GET /b"]
    later.asked[1][1](FINE)
    assert over == []
    later.asked[0][1](FINE)
    assert over == [True]


def test_warming_without_paths_is_over_at_once(context: WorkerContext) -> None:
    over: list[bool] = []
    warming.ask(context, [], lambda: over.append(True))
    assert over == [True]
