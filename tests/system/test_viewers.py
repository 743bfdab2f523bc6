"""What a viewer is told of an application's failures: that there were some, never what the application had in hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

APP = """
import os, sys

def app(environ, start):
    asked = environ["QUERY_STRING"] + environ.get("HTTP_COOKIE", "") + environ.get("HTTP_AUTHORIZATION", "")
    if environ["PATH_INFO"] == "/raise":
        raise RuntimeError(asked)
    if environ["PATH_INFO"] == "/die":
        print("dying of", asked, file=sys.stderr)
        os._exit(3)
    if environ["PATH_INFO"] == "/hang":
        held = asked
        while True:
            pass
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""
BROKEN = "password = 'hunter2'\nraise RuntimeError(password)\n"
CONFIG = """
[control]
roles = { viewer = ["4321"], operator = ["5432"] }
[listeners.web]
bind = ["127.0.0.1:0"]
[pools.web]
app = "app:app"
workers = 1
request_timeout = "2s"
"""
ASK = """
import json, os, sys
from srvd.client.connection import Client
from srvd.errors import SrvdError
path, uid, methods = json.loads(sys.argv[1])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
said = {}
with Client.connect(path) as client:
    said["role"] = client.hello.role
    for method, args in methods:
        try:
            said[method] = client.call(method, args)
        except SrvdError as exc:
            said[method] = exc.to_wire()
    said["events"] = list(client.watch(follow=False))
print(json.dumps(said))
"""
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("why", {}), ("status", {}), ("workers", {}), ("op.list", {}), ("op.show", {"id": 2}), ("op.wait", {"id": 2}),
    ("history", {}),
]  # fmt: skip
SECRET = "?token=s3cret HTTP/1.1\r\nHost: a\r\nCookie: id=s3cret\r\nAuthorization: Basic s3cret\r\n\r\n"


def ask(srvd: Srvd, uid: int) -> dict[str, Any]:
    given = json.dumps([str(srvd.socket), uid, QUESTIONS])
    done = subprocess.run([sys.executable, "-c", ASK, given], capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(done.stdout))


def test_what_an_application_had_in_hand_reaches_operators_and_no_viewer(starter: Starter) -> None:
    srvd = starter(config=CONFIG, code=APP)
    srvd.let_others_in()
    for path, deaths in (("/raise", 0), ("/die", 1), ("/hang", 2)):
        with Client(srvd.address()) as client:
            client.sock.settimeout(60)
            client.send(f"GET {path}{SECRET}".encode())
            assert client.sock.recv(1) == (b"" if deaths else b"H")
        wait_for(lambda: len(srvd.deaths()) >= deaths, 60)  # noqa: B023 -- asked at once
    srvd.deploy(BROKEN)
    failed = srvd.ctl("reload")
    assert failed.returncode == 1
    assert "hunter2" in failed.stderr
    viewer, operator = ask(srvd, 4321), ask(srvd, 5432)
    assert (viewer["role"], operator["role"]) == ("viewer", "operator")
    assert [death["request"] for death in viewer["why"]["deaths"]] == ["GET /hang", "GET /die"]
    assert viewer["why"]["deaths"][1]["stderr"] == "(operators are shown it)"
    assert viewer["why"]["deaths"][1]["traceback"] == ""  # there was none
    assert viewer["op.show"]["operation"]["error"]["detail"]["traceback"] == "(operators are shown it)"
    assert "s3cret" not in json.dumps(viewer)
    assert "hunter2" not in json.dumps(viewer)
    told = viewer["op.show"]["operation"]["error"]["message"]
    assert told.endswith("raised (operators are shown it); nothing was loaded")
    assert "s3cret" in json.dumps(operator["why"])
    assert "hunter2" in json.dumps(operator["op.show"])
