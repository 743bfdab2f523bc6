"""Claims about two pools under one daemon: what one of them scribbles is about itself alone."""

from __future__ import annotations

import http.client
import threading
import time

import pytest

from tests.conftest import Starter
from tests.hostile.attackers import ANSWER, ROOT, STRANGER
from tests.support.adoption import is_written
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

SCRIBBLES = (
    ANSWER
    + """
import mmap, struct, threading, time
def boards():
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if "srvd-scoreboard" in name or "srvd-bell" in name:
            yield fd, name
def scribble():
    done = set()
    for fd, name in list(boards()):
        size = os.fstat(fd).st_size
        long_ago = time.monotonic() - 1000
        lane = b"\\xff" * 344 + b"GET /forged".ljust(152, b"\\0") + struct.pack("dd", long_ago, long_ago)
        for way in ("write", "map", "open"):
            try:
                if way == "write":
                    os.pwrite(fd, (lane * (size // 512 + 1))[:size], 0)
                elif way == "map":
                    mmap.mmap(fd, size)[:] = (lane * (size // 512 + 1))[:size]
                else:
                    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR))
                done.add(name.split(":")[1].split()[0] + " " + way)
            except (OSError, ValueError, TypeError):
                pass
    return done
def attack(environ):
    if environ["PATH_INFO"] == "/read":
        return any(b"/reset/" in os.pread(fd, 1 << 20, 0) for fd, _ in list(boards()))
    done = scribble()
    def on():
        while True:
            scribble()
            time.sleep(0.01)
    threading.Thread(target=on, daemon=True).start()
    return sorted(done)
"""
)

SLOW = """
import os, time
def app(environ, start_response):
    if environ["PATH_INFO"].startswith("/reset"):
        time.sleep(float(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def both(starter: Starter) -> Srvd:
    """The hostile pool `web`, and a good one, `other`, with a limit of two seconds."""
    who = f'user = "{STRANGER}"\ngroup = "{STRANGER}"' if ROOT else ""
    more = '[listeners.other]\nbind = ["127.0.0.1:0"]\n\n[pools.other]\napp = "other:app"\nworkers = 2\n'
    more += 'listeners = ["other"]\nrequest_timeout = "2s"\n'
    srvd = starter.new(config=toml(f'workers = 1\nlisteners = ["web"]\n{who}', more), code=SCRIBBLES)
    srvd.deploy(SLOW, "other")
    srvd.let_others_in()
    return srvd.start()


def ask(srvd: Srvd, path: str) -> str:
    (address,) = [one["address"] for one in srvd.status()["listeners"] if one["name"] == "other"]
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=40)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (ConnectionError, http.client.HTTPException):
        return "lost"
    finally:
        connection.close()


def test_what_a_pool_scribbles_harms_no_other_one(both: Srvd) -> None:
    before = {worker["pid"] for worker in both.serving("other")}
    did = both.get()
    assert "srvd-scoreboard write" in did
    assert "srvd-bell write" not in did
    assert "srvd-bell map" not in did
    if ROOT:
        assert "srvd-bell open" not in did
    time.sleep(1.0)  # in which it goes on
    assert ask(both, "/") == "ok"
    assert {worker["pid"] for worker in both.serving("other")} == before
    assert both.ctl("reload", "other").returncode == 0
    # A worker of the other pool that is late is found all the same.
    began = time.monotonic()
    assert ask(both, "/reset/token?120") == "lost"
    assert time.monotonic() - began < 60
    both.wait_serving(2, pool="other")
    for words in (("status",), ("workers",), ("why",), ("upgrade", "--check")):
        done = both.ctl(*words)
        assert (done.returncode, done.stderr) == (0, ""), words


def test_a_family_with_a_scribbler_is_adopted(both: Srvd) -> None:
    both.get()
    before = {worker["pid"] for worker in both.serving("other")}
    wait_for(lambda: is_written(both))
    both.die()
    both.start(ready=False)
    wait_for(lambda: both.logged().count("control socket") == 2, BOOT)
    both.wait_serving(2, pool="other")
    assert before & {worker["pid"] for worker in both.serving("other")}


def test_a_pool_does_not_read_the_requests_of_another_one(both: Srvd) -> None:
    slow = threading.Thread(target=ask, args=(both, "/reset/token?1.5"))
    slow.start()
    wait_for(lambda: any(worker["busy"] for worker in both.serving("other")))
    assert both.get("/read").endswith("False")
    slow.join()
