"""Claims about each abuse of a local user without a role, alone: it has no effect, and all others are served as before.

The daemon has adopted its workers, so the name where they called is open.
"""

from __future__ import annotations

import psutil
import pytest

from tests.conftest import Starter
from tests.hostile.attackers import STRANGER, attempt, needs_root
from tests.hostile.local_users import ABUSES, PROGRAM
from tests.hostile.neighbour import undisturbed
from tests.hostile.test_channels import APP, two_pools
from tests.support.adoption import adopted, is_written
from tests.support.daemon import Srvd
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.system, needs_root]

NOBODY = STRANGER + 3
"""A uid without a role and without a pool."""

SECRETS = ("token-of-other", "of root alone")

GROWTH = 8 << 20
"""Bytes by which one abuse may have the daemon grow."""


@pytest.fixture(scope="module")
def srvd(module_starter: Starter) -> Srvd:
    srvd = two_pools(module_starter, APP, last=f'[control]\nroles = {{ viewer = ["{STRANGER + 2}"] }}')
    wait_for(lambda: is_written(srvd))
    srvd.die()
    adopted(srvd)
    srvd.wait_serving(2, pool="other")
    return srvd


@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abuse_of_a_local_user_has_no_effect(srvd: Srvd, abuse: str) -> None:
    daemon = psutil.Process(srvd.pid)
    targets = ",".join(str(process.pid) for process in (daemon, *srvd.family()))
    before, logged = daemon.memory_info().rss, len(srvd.logged())
    names = {path.name for path in srvd.folder.iterdir()}
    with undisturbed(srvd):
        attempt(NOBODY, PROGRAM, abuse, str(srvd.socket), str(srvd.pid), targets, *SECRETS)
    assert daemon.memory_info().rss - before < GROWTH
    told = [line for line in srvd.logged()[logged:].splitlines() if f"uid {NOBODY}" in line]
    assert len(told) <= 1  # in a minute, whatever it does
    assert {path.name for path in srvd.folder.iterdir()} == names
    assert {op["actor"]["uid"] for op in srvd.call("history", limit=200)["operations"]} == {0}
