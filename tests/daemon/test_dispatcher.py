"""Claims about the engine when a part of srvd itself is wrong: the order that met the bug ends, nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.config.load import load
from srvd.config.settings import Config
from srvd.core.events import Ordered, Tick
from srvd.core.model import Actor, ErrorCode, Kind, OpId, OpState, Order, Revision
from srvd.core.supervisor import Supervisor
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.performer import Performer
from srvd.daemon.dispatcher import Dispatcher
from srvd.daemon.listeners import Listeners
from srvd.daemon.loop import Loop
from srvd.linux.scoreboard import Bell
from srvd.log import Log

ME = Actor(0, 1, "root")


class Stage:
    """An engine without a daemon: nothing was started, so that an order meets only what reads the configuration."""

    def __init__(self, log: int) -> None:
        self.core = Supervisor()
        self.core.house.started = True  # else the first operation would pass for the start
        self.commons = Commons(Bell.create(), 1)
        self.listeners = Listeners()
        self.loop = Loop()
        performer = Performer(
            self.loop, self.commons, self.listeners, lambda _: None, lambda: None, lambda _, line: None
        )
        self.engine = Dispatcher(self.core, performer, self.listeners, Log(log))
        self.engine.answers = self  # type: ignore[assignment]  # only `answered` is asked of it
        self.engine.headroom = lambda names: ()
        self.engine.on_ready = lambda: None
        self.engine.on_turned = lambda: None
        self.engine.on_change = lambda: None
        self.engine.persist = lambda: None
        self.engine.adopt(Revision(1), load(None, {"--bind": ("127.0.0.1:0",)}, {}))

    def answered(self, answer: object) -> None:
        """Nobody waits for it."""

    def reload(self) -> OpId:
        self.engine.emit(Ordered(1, Order(Kind.RELOAD), ME))
        return OpId(self.core.house.count)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with (tmp_path / "log").open("wb") as log:
        stage = Stage(log.fileno())
        yield stage
        stage.listeners.close()
        stage.commons.close()
        stage.loop.close()


def test_a_reload_that_meets_a_bug_ends_and_the_next_one_is_not_kept_waiting(stage: Stage, tmp_path: Path) -> None:
    def unreadable() -> Config:
        raise ZeroDivisionError

    stage.engine.reread = unreadable
    for expected in (1, 2):
        op = stage.reload()
        assert op == expected, "it has joined the one that failed"
        ended = stage.core.operation(op)
        assert ended is not None
        assert ended.fault is not None
        assert (ended.state, ended.fault.code) == (OpState.FAILED, ErrorCode.INTERNAL)
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()


def test_the_configuration_of_a_start_that_failed_is_there_for_who_asks(stage: Stage) -> None:
    stage.core.house.revisions.add(Revision(1))  # and no generation uses it any more
    stage.engine.emit(Tick())
    assert stage.core.house.revisions == set()
    assert stage.engine.config.listeners


def test_a_bug_in_measuring_leaves_no_listener_open(stage: Stage) -> None:
    def immeasurable(names: list[str]) -> tuple[()]:
        raise ZeroDivisionError

    fresh = load(None, {"--bind": ("127.0.0.1:0", "[::1]:0")}, {})
    stage.engine.reread = lambda: fresh
    stage.engine.headroom = immeasurable
    stage.reload()
    assert len(stage.listeners.described()) == 1
