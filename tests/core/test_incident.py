"""What a daemon logs at level debug is a transcript: the core plays it again and decides the same."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Starter
from tests.core.test_transcripts import from_log, replayed


@pytest.mark.system
def test_the_trace_of_a_daemon_is_played_again_to_the_same_end(starter: Starter) -> None:
    # Without a bake, which looks at a worker's answers once a second: whether an event came before or after that moment
    # is known to the daemon's clock, but a line of the log has the time at which it was written.
    srvd = starter("--workers", "2", "--log-level", "debug", env={"SRVD_BAKE": "0"})
    srvd.call("reload")
    srvd.call("scale", size=3)
    srvd.kill_worker()
    srvd.wait_serving(3)
    assert srvd.stop() == 0
    traced = re.findall(r" DEBUG < (.+)", srvd.logged())
    played = re.findall(r"^ +< (.+)", replayed("incident", from_log(srvd.logged())), re.MULTILINE)
    assert len(traced) > 20
    assert played == traced
