"""Claims about imported configurations in service: srvd answers as gunicorn does with the original.

Both run with the same application and are asked the same. Skipped where gunicorn is not installed.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Starter
from tests.migrate.test_convert import convert_text
from tests.support.daemon import free_port
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

APP = """
import json, os
def application(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        raise ValueError("broken")
    told = {name: environ.get(name) for name in (
        "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "REMOTE_ADDR", "HTTP_HOST",
        "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_X_FORWARDED_PROTO", "wsgi.url_scheme", "wsgi.multithread")}
    told |= {name: os.environ.get(name) for name in ("SITE", "FROM_HOOK", "MODE")}
    body = environ["wsgi.input"].read().decode()
    text = json.dumps({**told, "body": body, "cwd": os.getcwd()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [text]
"""

HOOKS = """
def post_fork(server, worker):
    os.environ["FROM_HOOK"] = "seen"
    worker.log.info("forked %s", worker.pid)
"""

CONFIGURATIONS = {
    "sync": "import os\nbind = '127.0.0.1:' + os.environ['SITE_PORT']\nworkers = 1\ntimeout = 20\n",
    "threads": "import os\nbind = f\"127.0.0.1:{os.getenv('SITE_PORT')}\"\nworkers = '2'\nthreads = 4\nkeepalive = 5\n",
    "hooks and variables": (
        "import multiprocessing, os\nbind = ['127.0.0.1:' + os.environ.get('SITE_PORT', '1')]\n"
        "workers = min(multiprocessing.cpu_count() * 2 + 1, 2)\nraw_env = ['SITE=shop']\npreload_app = True\n"
        "accesslog = 'access'\nloglevel = 'WARNING'\nmax_requests = 1000\n" + HOOKS
    ),
    "limits": (
        "import os\nbind = '127.0.0.1:' + os.environ['SITE_PORT']\nlimit_request_line = 200\n"
        "limit_request_fields = 20\nlimit_request_field_size = 300\nworker_class = 'gthread'\n"
        "threads = 2\nproc_name = 'Shop'\n"
    ),
}

REQUESTS: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("GET", "/a%20b?x=1&y=%2F", b"", {}),
    ("POST", "/form", b"name=value", {"Content-Type": "application/x-www-form-urlencoded"}),
    ("PUT", "/", b"x" * 100_000, {"Content-Type": "text/plain"}),
    ("GET", "/fail", b"", {}),
    ("GET", "/", b"", {"X-Forwarded-Proto": "http"}),
    ("GET", "/" + "a" * 300, b"", {}),
    ("GET", "/", b"", {"X-Long": "a" * 400}),
    ("GET", "/", b"", {f"X-{number}": "a" for number in range(40)}),
    ("HEAD", "/", b"", {}),
]

DIFFERENT = {400: 431, 414: 414}
"""gunicorn's statuses of requests that are too long, and srvd's; both refuse, srvd with a status that says what."""


def ask(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body or None, {"Host": "shop.example", **headers})
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if response.status == 200 and text else None
    finally:
        connection.close()


@contextmanager
def gunicorn(folder: Path, port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "shop.wsgi"]
    env = {**os.environ, "SITE_PORT": str(port), "MODE": "test"}
    with (folder / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(port), within=60)
        yield
    finally:
        process.terminate()
        process.wait(60)


def answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/", b"", {})[0] == 200
    except OSError:
        return False


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_an_imported_configuration_answers_as_the_original(name: str, starter: Starter) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    port = free_port()
    srvd = starter.new(config="# replaced", env={"SITE_PORT": str(port), "MODE": "test"})
    (srvd.folder / "shop").mkdir()
    (srvd.folder / "shop" / "wsgi.py").write_text(APP)
    for file, text in convert_text(CONFIGURATIONS[name], srvd.folder).files.items():
        (srvd.folder / file).write_text(text)
    with gunicorn(srvd.folder, port):
        theirs = [ask(port, *request) for request in REQUESTS]
    srvd.start()
    ours = [ask(port, *request) for request in REQUESTS]
    assert [status for status, _ in theirs].count(200) >= 4
    for request, (their_status, their_facts), (our_status, our_facts) in zip(REQUESTS, theirs, ours, strict=True):
        assert our_status == DIFFERENT.get(their_status, their_status), request[:2]
        assert our_facts == their_facts, request[:2]
