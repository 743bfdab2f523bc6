"""The wall clock jumps. Nothing that waits looks at it: only what people read has the new time.

libfaketime gives the daemon and its family another wall clock, and leaves the monotonic one alone. The machine's own
clock stays as it is: other programs live by it. A time namespace would not do, for it has no wall clock of its own
(time_namespaces(7)).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, toml
from tests.support.fault import under_load
from tests.support.waiting import wait_for

LIBRARIES = [
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),  # Debian
    *Path("/usr/lib").glob("faketime/libfaketimeMT.so.1"),
]

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed"),
]


@pytest.fixture
def jumping(starter: Starter) -> Srvd:
    """A daemon whose wall clock is what `_jump` says; `faketime` and its shell wrapper are not needed."""
    clock = starter.folder / "clock"
    clock.write_text("+0")
    env = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    config = toml('workers = 2\nrequest_timeout = "20s"\nbake = "1s"\nrollback_window = "5s"')
    srvd = starter.new(config=config, env=env)
    return srvd.start()


def _jump(srvd: Srvd, offset: str) -> None:
    fresh = srvd.folder.parent / "clock.new"
    fresh.write_text(offset)
    fresh.replace(srvd.folder.parent / "clock")


def _date(srvd: Srvd) -> str:
    connection = srvd.connect()
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        return str(response.getheader("Date"))
    finally:
        connection.close()


@pytest.mark.parametrize("offset", ["+400d", "-400d"])
def test_a_jump_of_the_wall_clock_ends_no_wait_and_prolongs_none(jumping: Srvd, offset: str) -> None:
    srvd = jumping
    before, year = srvd.names(), _date(srvd).split()[3]
    with under_load(srvd, f"the wall clock jumps {offset}") as fault:
        assert srvd.call("reload", wait=True)["operation"]["state"] == "done"  # its bake is under way
        former = srvd.names()
        fault.strikes()
        _jump(srvd, offset)
        wait_for(lambda: _date(srvd).split()[3] != year)  # what people read has the new time
        fault.load.more(200)
        assert srvd.names() == former
        srvd.wait_logged("stays: no crash loop while it baked")
        victim = fault.kills()
        fault.replaced(victim, 2)
        assert srvd.call("scale", size=3)["operation"]["state"] == "done"
        wait_for(lambda: srvd.pool()["former"] is None)  # the rollback window: 5 s, not 400 days
    assert fault.lost() == []
    assert before.isdisjoint(former)
    why = fault.why(victim)
    assert "killed by signal 9" in why
    assert "after -" not in why  # how long it lived
    assert 0 <= srvd.status()["daemon"]["uptime_s"] < 600
    _jump(srvd, "+0")
