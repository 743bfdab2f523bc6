"""Claims about daemons that are killed at any moment: of an adoption, of an order; and about starts at the same time.

What is left to the next one by a daemon that dies in peace is in test_adoption.py.
"""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.conftest import Starter
from tests.support.adoption import die, is_whole, is_written, pids
from tests.support.daemon import BOOT, toml
from tests.support.shares import shares
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


@pytest.mark.parametrize("share", shares(2, slow=0))
def test_a_start_that_is_killed_while_it_adopts_leaves_everybody_to_the_next(starter: Starter, share: int) -> None:
    srvd = starter(config=toml("workers = 3\norphan_timeout = 600"))
    with srvd.under_load(clients=6) as load:
        before = die(srvd)
        for moment in range(share, 12, 2):
            srvd.start(ready=False)
            assert srvd.process is not None
            with suppress(subprocess.TimeoutExpired):
                srvd.process.wait(0.05 + 0.03 * moment)  # it does not end by itself
            srvd.signal(signal.SIGKILL)
            srvd.wait()
            load.more()
        srvd.start()
        assert pids(srvd) == before
        is_whole(srvd)
    assert load.failed == []


def test_of_two_starts_at_once_one_adopts_and_the_other_is_refused(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"))
    with srvd.under_load(clients=4) as load:
        before = die(srvd)
        with ThreadPoolExecutor() as pool:
            other = pool.submit(
                subprocess.run, srvd.command, cwd=srvd.folder, env=srvd.env, capture_output=True, timeout=60
            )
            srvd.start(ready=False)
            assert srvd.process is not None
            wait_for(lambda: srvd.process.poll() is not None or other.done(), BOOT)  # type: ignore[union-attr]
            if other.done():
                assert other.result().returncode == 71
                wait_for(srvd.is_ready, BOOT)
            else:
                assert srvd.wait() == 71
                wait_for(lambda: len(srvd.names()) == 2, BOOT)
                srvd.daemonized = int(srvd.status()["daemon"]["pid"])
            assert pids(srvd) == before
            is_whole(srvd)
            load.more()
            load.over.set()
            assert load.failed == []
            assert srvd.stop() == 0
            assert other.result().returncode in (0, 71)


@pytest.mark.parametrize("share", shares(2, slow=0))
@pytest.mark.parametrize("order", ["upgrade", "reload", "recycle"])
def test_a_daemon_that_is_killed_at_any_moment_of_an_order_leaves_everybody_to_the_next(
    starter: Starter, order: str, share: int
) -> None:
    srvd = starter(config=toml("workers = 2\norphan_timeout = 600\nbake = 0"))
    with srvd.under_load(clients=4) as load:
        for moment in range(share, 8, 2):
            wait_for(lambda: is_written(srvd))
            op = srvd.order(order)
            with suppress(subprocess.TimeoutExpired):
                assert srvd.process is not None
                srvd.process.wait(0.04 * moment)
            srvd.die()
            srvd.start()
            assert srvd.operation(op)["state"] in ("done", "failed")
            srvd.wait_serving(2)
            load.more()
        is_whole(srvd)
    assert load.failed == []
