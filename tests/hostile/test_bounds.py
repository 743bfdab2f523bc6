"""Claims about those who ask without end: a flood delays nobody who may ask, and a start names who could end it."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from srvd.client.connection import Client
from srvd.daemon.control.limits import Limits
from srvd.daemon.control.socket_path import BACKLOG
from tests.conftest import Starter
from tests.hostile.attackers import ROOT, STRANGER, as_user, needs_root
from tests.support.daemon import Srvd, toml

pytestmark = pytest.mark.system

FLOOD = """
import socket, sys
print("begins", flush=True)
while True:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(sys.argv[1])
"""


@contextlib.contextmanager
def flooded(srvd: Srvd, attackers: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        running: list[subprocess.Popen[str]] = []
        for _ in range(attackers):
            running.append(stack.enter_context(as_user(STRANGER, FLOOD, str(srvd.socket))))
            stack.callback(running[-1].kill)
        for one in running:
            assert one.stdout is not None
            assert one.stdout.readline() == "begins\n"
        yield


def test_a_full_backlog_is_looked_at_within_a_twentieth_of_a_second() -> None:
    """So a flood delays an admin by less than 100 ms, with what the daemon does beside it."""
    assert BACKLOG / Limits().look_rate <= 0.05


@needs_root
def test_a_flood_of_connections_without_a_role_delays_root_by_the_length_of_a_queue(starter: Starter) -> None:
    srvd = starter.new(config=toml("workers = 1", '[control]\nroles = { viewer = ["daemon"] }'))
    srvd.let_others_in()
    srvd.start()
    daemon, took = psutil.Process(srvd.pid), []
    with flooded(srvd, 4):
        before, began = sum(daemon.cpu_times()[:2]), time.monotonic()
        while time.monotonic() - began < 5:
            asked = time.monotonic()
            with Client.connect(str(srvd.socket)) as client:
                client.call("ping")
            took.append(time.monotonic() - asked)
        share = (sum(daemon.cpu_times()[:2]) - before) / (time.monotonic() - began)
    median, longest = statistics.median(took), max(took)
    print(f"{len(took)} pings: median {median:.3f} s, longest {longest:.3f} s; daemon {share:.0%} of a core")  # noqa: T201
    assert median < 0.5  # with a queue at 200 a second it were 0.6 s on a quiet machine, and more on a busy one


@pytest.mark.skipif(not ROOT, reason="only root can give a pool another user")
@pytest.mark.parametrize("user", ["", f'user = "{STRANGER}"\ngroup = "{STRANGER}"'], ids=["root", "another"])
def test_a_start_as_root_without_user_warns_once(starter: Starter, user: str) -> None:
    srvd = starter.new(config=toml(f"workers = 1\n{user}"))
    srvd.let_others_in()
    srvd.start()
    srvd.ctl("reload")
    assert srvd.logged().count("pool web runs as root") == (0 if user else 1)
