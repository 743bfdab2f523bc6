"""Claims about each abuse of a network client, alone: other clients of the same listener, and of another pool, lose
nothing.
"""

from __future__ import annotations

import os

import psutil
import pytest

from tests.conftest import Starter
from tests.hostile.attackers import ROOT, STRANGER, attempt
from tests.hostile.clients import ABUSES, LIMITS, LISTENERS, PROGRAM
from tests.hostile.neighbour import undisturbed
from tests.hostile.test_channels import two_pools
from tests.support.certificates import Authority
from tests.support.daemon import BOOT, Srvd
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

GROWTH = 64 << 20
"""Bytes by which the workers of the pool may have grown: bounded by their settings, whatever a client sends."""

APP = """
import os
def app(environ, start_response):
    path, body = environ["PATH_INFO"], b"web %d 1" % os.getpid()
    if path == "/big":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (bytes(65536) for _ in range(512))
    if path == "/echo":
        body = b"whole=%d" % len(environ["wsgi.input"].read())
    elif path == "/smuggled":
        body = b"smuggled"
    elif path == "/told":
        names = {"addr": "REMOTE_ADDR", "scheme": "wsgi.url_scheme", "host": "HTTP_HOST", "script": "SCRIPT_NAME"}
        names["chain"] = "HTTP_X_FORWARDED_FOR"
        body = "\\n".join(f"{name}={environ.get(key, '')}" for name, key in names.items()).encode("latin-1")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture(scope="module")
def srvd(module_starter: Starter) -> Srvd:
    """The pool `web` with a listener of each kind, and `other`."""
    authority = Authority(module_starter.folder)
    authority.file("shop.example").replace(tls := module_starter.folder / "tls.pem")
    settings = {name: text.replace("tls.pem", str(tls)) for name, text in LISTENERS.items() if name != "web"}
    more = "".join(f'[listeners.{name}]\nbind = ["127.0.0.1:0"]\n{text}\n' for name, text in settings.items())
    return two_pools(module_starter, APP, workers=2, seconds=LIMITS, listeners=LISTENERS, last=more, apart=False)


@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abuse_of_a_client_costs_no_other_client_anything(srvd: Srvd, abuse: str) -> None:
    workers = [psutil.Process(worker["pid"]) for worker in srvd.serving("web")]
    before, fds = sum(one.memory_info().rss for one in workers), psutil.Process(srvd.pid).num_fds()
    ports = [str(srvd.address(name)[1]) for name in LISTENERS]
    with undisturbed(srvd, "web", "other"):
        attempt(STRANGER + 3 if ROOT else os.geteuid(), PROGRAM, abuse, *ports)
    assert {worker["pid"] for worker in srvd.serving("web")} == {one.pid for one in workers}
    assert srvd.deaths() == []
    assert sum(one.memory_info().rss for one in workers) - before < GROWTH
    assert psutil.Process(srvd.pid).num_fds() <= fds + 2
    wait_for(lambda: all(one["connections"] <= 1 for one in srvd.call("workers")["workers"]), BOOT)
