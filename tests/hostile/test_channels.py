"""Claims about each abuse of each channel of a worker, alone: the daemon answers, and another pool serves as before."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable

import pytest

from tests.conftest import Starter
from tests.hostile.attackers import ROOT, STRANGER
from tests.hostile.channels import ABUSES, FOREIGN, PROGRAM
from tests.support.daemon import Srvd, toml

pytestmark = pytest.mark.system

APP = (
    PROGRAM
    + """
def app(environ, start_response):
    name = environ["PATH_INFO"][1:]
    if name:
        threading.Thread(target=globals()[name], args=(Dice(1),), daemon=True).start()
        time.sleep(0.1)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""
)

NEIGHBOUR = """
import os, time
SECRET = os.environ["TOKEN"]
def app(environ, start_response):
    while environ["PATH_INFO"] == "/hang":
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"neighbour {os.getpid()} 1".encode()]
"""


def two_pools(
    starter: Starter,
    code: str,
    *,
    workers: int = 1,
    seconds: str = "",
    listeners: Iterable[str] = ("web",),
    last: str = "",
    apart: bool = ROOT,
) -> Srvd:
    """The hostile pool `web` with these listeners, and `other`, each of a user of its own if they are `apart`;
    `last` ends the configuration.
    """
    users = [f'user = "{uid}"\ngroup = "{uid}"' if apart else "" for uid in (STRANGER, STRANGER + 1)]
    folder = starter.folder / f"srvd{len(starter.all)}"  # the next one's
    hostile = f'workers = {workers}\nlisteners = {json.dumps([*listeners])}\npreload = "off"\n{users[0]}\n{seconds}\n'
    hostile += f'env = {{ SHOP_CONTROL = "{folder / "control.sock"}" }}'
    more = '[listeners.other]\nbind = ["127.0.0.1:0"]\n\n[pools.other]\napp = "other:app"\nworkers = 2\n'
    more += f'listeners = ["other"]\nrequest_timeout = "2s"\nenv = {{ TOKEN = "token-of-other" }}\n{users[1]}\n{last}\n'
    srvd = starter.new(config=toml(hostile, more), code=code)
    assert srvd.folder == folder
    srvd.deploy(NEIGHBOUR, "other")
    secret = srvd.folder / "secret"
    secret.write_text("of root alone")
    secret.chmod(0o600)
    srvd.let_others_in()
    return srvd.start()


@pytest.fixture(scope="module")
def both(module_starter: Starter) -> Srvd:
    return two_pools(module_starter, APP)


@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abuse_is_about_its_own_pool_alone(both: Srvd, abuse: str) -> None:
    if abuse in FOREIGN and not ROOT:
        pytest.skip("needs a pool of another user than the daemon's: only root can start one")
    before = {worker["pid"] for worker in both.serving("other")}
    connection = both.connect(timeout=10)
    try:
        connection.request("GET", f"/{abuse}")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):  # it may end the worker that was asked
        pass
    finally:
        connection.close()
    time.sleep(0.1)
    assert both.get(listener="other").startswith("neighbour ")
    assert {worker["pid"] for worker in both.serving("other")} == before
    assert both.call("ping") is not None
    log = both.logged()
    assert "LEAK" not in log
    assert "a bug in srvd" not in log
