"""Claims about reading the configuration when a part of srvd itself is wrong: the order ends, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from srvd.config.load import load
from srvd.config.settings import Config
from srvd.core.events import ConfigRead, ConfigRefused
from srvd.core.model import ErrorCode, Headroom, OpId, Revision
from srvd.daemon.dispatch.config_reader import ConfigReader
from srvd.daemon.dispatch.configs import Configs
from srvd.daemon.listeners import Listeners
from srvd.log import Log


class Stage:
    """What a reload reads, without a daemon."""

    def __init__(self, log: int) -> None:
        self.log = Log(log)
        self.listeners = Listeners()
        self.configs = Configs(lambda revision, config: None)
        config = load(None, {"--bind": ("127.0.0.1:0",)}, {})
        self.listeners.prepare(Revision(1), config.listeners)
        self.configs.restore({Revision(1): config}, Revision(1))

    def read(
        self,
        read: Callable[[], Config],
        measure: Callable[[list[str]], tuple[tuple[str, Headroom], ...]] = lambda _: (),
    ) -> ConfigRead | ConfigRefused:
        return ConfigReader(self.configs, read, measure, self.listeners, self.log).read(OpId(2))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with (tmp_path / "log").open("wb") as log:
        stage = Stage(log.fileno())
        yield stage
        stage.listeners.close()


def test_a_reload_that_meets_a_bug_is_refused_and_so_ends(stage: Stage, tmp_path: Path) -> None:
    def unreadable() -> Config:
        raise ZeroDivisionError

    answer = stage.read(unreadable)
    assert isinstance(answer, ConfigRefused)
    assert (answer.op, answer.fault.code) == (2, ErrorCode.INTERNAL)
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()


def test_the_configuration_of_a_start_that_failed_is_there_for_clients_that_ask(stage: Stage) -> None:
    stage.configs.drop(Revision(1))  # no generation uses it any more
    assert stage.configs.config.listeners


def test_a_bug_in_measuring_leaves_no_listener_open(stage: Stage) -> None:
    def immeasurable(names: list[str]) -> tuple[()]:
        raise ZeroDivisionError

    fresh = load(None, {"--bind": ("127.0.0.1:0", "[::1]:0")}, {})
    assert isinstance(stage.read(lambda: fresh, immeasurable), ConfigRefused)
    assert len(stage.listeners.described()) == 1
    assert isinstance(stage.read(lambda: fresh), ConfigRead)
    assert len(stage.listeners.described()) == 2
