"""Claims about each abuse of a viewer, alone: it gets nothing above its role, and all others are served as before."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import psutil
import pytest

from srvd.client.connection import Client
from srvd.wire.commands import COMMANDS, VIEWER
from tests.conftest import Starter
from tests.hostile.attackers import STRANGER, attempt, needs_root
from tests.hostile.neighbour import undisturbed
from tests.hostile.test_channels import two_pools
from tests.hostile.viewers import ABOVE, ABUSES, PROGRAM
from tests.support.daemon import Srvd
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client as HttpClient

pytestmark = [pytest.mark.system, needs_root]

GROWTH = 8 << 20
"""Bytes by which one abuse may have the daemon grow: most of it is memory that the next one finds free."""

SECRETS = ("token-of-other", "s3cret", "hunter2", "printed-secret")

STEERING = re.compile("[^\n\t\x20-\x7e\u00a1-\u200d\u2010-\u2027\u2030-\u2065\u206a-\uffff]")
"""What a terminal, or a reader of a log, may be misled by: controls of both sets, and marks that turn the direction."""

BAD = "\x1b]0;owned\x07\x1b[2J\r\n2026-01-01 00:00:00.000 ERROR forged\x9b2J\u202e"

APP = f"""
import os, sys, threading, time
BAD = {BAD!r}
exec(compile("def held():\\n    threading.Event().wait()\\n", BAD + ".py", "exec"))
threading.Thread(target=lambda: held(), name=BAD, daemon=True).start()
def app(environ, start_response):
    asked = environ["QUERY_STRING"] + environ.get("HTTP_COOKIE", "")
    path = environ["PATH_INFO"]
    if path.startswith("/raise"):
        print("printed-secret", BAD)
        raise type(BAD, (Exception,), {{}})(BAD + asked)
    if path.startswith("/die"):
        print(BAD + asked, file=sys.stderr, flush=True)
        os._exit(3)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"web {{os.getpid()}} 1".encode()]
"""

BROKEN = f"password = 'hunter2'\nraise RuntimeError(password + {BAD!r} + password)\n"


def lived(srvd: Srvd) -> None:
    """Deaths, failures and refused operations, each with something in it that a viewer must not read."""
    for path in ("/raise", "/die/%1b%5b2J"):
        with HttpClient(srvd.address()) as client, contextlib.suppress(EOFError, ConnectionResetError):
            client.get(f"{path}?token=s3cret", "Cookie: id=s3cret")
    wait_for(srvd.deaths, 60)
    good = (srvd.folder / "app.py").read_text()
    srvd.deploy(BROKEN)
    assert srvd.ctl("reload", "web").returncode == 1
    srvd.deploy(good)
    with Client.connect(str(srvd.socket)) as admin:
        admin.call("scale", {"pool": "other", "size": 2}, idem="of-an-admin")
    srvd.wait_serving(1)


@pytest.fixture(scope="module")
def srvd(module_starter: Starter) -> Srvd:
    viewer = STRANGER + 2
    srvd = two_pools(module_starter, APP, last=f'[control]\nroles = {{ viewer = ["{viewer}"] }}')
    lived(srvd)
    return srvd


def test_the_table_has_every_order_above_a_viewer() -> None:
    assert set(ABOVE) == {entry.name for entry in COMMANDS if entry.role != VIEWER}


OUTPUTS = (
    "ping", "status", "workers", "workers web", "why", "why --all", "why web", "why WORKER", "dump", "dump web",
    "op list", "op show OP", "op wait OP", "history", "history --limit 3", "events", "events --topic worker", "config",
)  # fmt: skip
"""What an admin reads on a terminal: OP is the operation that has failed, WORKER the worker that has died."""


@pytest.mark.parametrize("words", OUTPUTS)
def test_no_output_steers_the_terminal_of_who_reads_it(srvd: Srvd, words: str) -> None:
    failed = next(op["id"] for op in srvd.call("history")["operations"] if op["state"] == "failed")
    died = srvd.deaths()[0]["worker"]
    done = srvd.ctl(*words.replace("OP", str(failed)).replace("WORKER", died).split())
    assert not STEERING.search(done.stdout + done.stderr)
    assert (done.stdout + done.stderr).strip()
    if words in ("why WORKER", "op show OP", "dump web"):  # and there was something to escape
        assert "\\x1b" in done.stdout


def test_no_line_of_the_log_steers_a_terminal(srvd: Srvd) -> None:
    log = Path(srvd.log).read_text()
    assert "\\x1b" in log
    assert not STEERING.search(log)


@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abuse_of_a_viewer_has_no_effect(srvd: Srvd, abuse: str) -> None:
    daemon = psutil.Process(srvd.pid)
    before, logged = daemon.memory_info().rss, len(srvd.logged())
    with undisturbed(srvd):
        attempt(STRANGER + 2, PROGRAM, abuse, str(srvd.socket), *SECRETS)
    assert daemon.memory_info().rss - before < GROWTH
    log = srvd.logged()[logged:]
    assert not STEERING.search(log)
    assert not [line for line in log.splitlines() if re.match(r"\S+ \S+ ERROR forged", line)]
    done = srvd.call("history", limit=200)["operations"]
    assert {op["actor"]["uid"] for op in done} == {0}
