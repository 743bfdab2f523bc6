"""Streams of real packages beside each other, behind nginx as packaged and directly, for quick readers and slow ones:
none has a line of another's, none is cut.

SRVD_STRESS=1 makes it 200 streams of each. PostgreSQL is Debian's, started here for a user that is not root.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support.nginx import NGINX, nginx
from tests.support.users import own_name

pytestmark = [pytest.mark.system, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
STREAMS = 200 if os.environ.get("SRVD_STRESS") else 16
CLIENTS = 8
LENGTH = 30 * 40_000 + len("end\n")
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
CONFIG = f"""
[listeners.web]
bind = ["127.0.0.1:0"]

[pools.web]
app = "tests.support.apps.streaming_app:app"
pythonpath = ["{ROOT}"]
workers = 2
preload = "off"
threads = {{}}
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The folder of its Unix socket; "" if there is none to be had."""
    if not POSTGRES or importlib.util.find_spec("psycopg2") is None:
        print("without PostgreSQL: apt-get install postgresql, pip install psycopg2-binary")  # noqa: T201
        yield ""
        return
    if not own_name(""):
        print("without PostgreSQL: it runs as a user with a name only")  # noqa: T201
        yield ""
        return
    folder = Path(tempfile.mkdtemp(prefix="srvd-postgres-"))
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:  # as whom it does not run
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def run(name: str, *arguments: str) -> None:
        subprocess.run(
            [POSTGRES[-1] / name, "-D", folder / "data", *arguments],
            check=True, timeout=120, cwd=folder, stdout=subprocess.DEVNULL, **as_user,
        )  # type: ignore[call-overload]  # fmt: skip

    try:
        run("initdb", "-U", "postgres", "-A", "trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield str(folder)
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _kinds(database: str) -> list[str]:
    kinds = ["flask", "sqlite"]
    if database:
        kinds += ["django", "atomic"]
    if importlib.util.find_spec("opentelemetry.instrumentation.wsgi") is not None:
        kinds.append("opentelemetry")
    if importlib.util.find_spec("newrelic") is not None:
        kinds.append("newrelic")
    return kinds


def _stream(address: tuple[str, int], kind: str, number: int) -> str:
    """What was wrong with one stream; "" if nothing was. Every second reader is slow."""
    user = f"{number + 1:032x}"
    slow = number % 2
    with socket.socket() as client:
        if slow:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.settimeout(60)
        client.connect(address)
        traced = f"traceparent: 00-{user}-00f067aa0ba902b7-01\r\n"
        client.sendall(f"GET /{kind}?user={user} HTTP/1.0\r\nHost: a\r\n{traced}\r\n".encode())
        data = bytearray()
        try:
            while piece := client.recv(65_536):
                data += piece
                if slow:
                    time.sleep(0.001)
        except OSError as exc:
            return f"cut: {exc} after {len(data)}"
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    *lines, last = body.decode().split("\n")[:-1] or [""]
    others = {line.split(" ")[0] for line in lines} - {user}
    if others:
        return f"mixed: {head[:30]!r} {others}"
    return "" if last == "end" and len(body) == LENGTH else f"cut: {head[:30]!r}, {len(body)} bytes"


@pytest.mark.parametrize("threads", [1, 4])
def test_no_stream_is_mixed_with_another_and_none_is_cut(starter: Starter, database: str, threads: int) -> None:
    env = {"PGHOST": database} if database else {}
    srvd = starter.new(config=CONFIG.format(threads), env=env).start()
    fronts = {"directly": srvd.address()}
    with ThreadPoolExecutor(CLIENTS) as pool, _maybe_nginx(starter.folder, srvd.address()) as port:
        if port:
            fronts["nginx"] = ("127.0.0.1", port)
        for front, address in fronts.items():
            for kind in _kinds(database):
                wrong = [
                    what for what in pool.map(_stream, [address] * STREAMS, [kind] * STREAMS, range(STREAMS)) if what
                ]
                mixed = sum(what.startswith("mixed") for what in wrong)
                print(  # noqa: T201 - figures to read
                    f"{kind}, threads = {threads}, {front}: {STREAMS} streams, {mixed} mixed, {len(wrong) - mixed} cut"
                )
                assert wrong == [], (kind, front)
    assert "Traceback" not in srvd.logged()


@contextmanager
def _maybe_nginx(folder: Path, address: tuple[str, int]) -> Iterator[int]:
    if NGINX is None:
        print("without nginx: apt-get install nginx-light")  # noqa: T201
        yield 0
        return
    # One location, and everything else as Debian has it: HTTP/1.0 to what is behind it, with buffers.
    location = f"location / {{ proxy_pass http://{address[0]}:{address[1]}; }}"
    with nginx(folder, f"server {{ listen 127.0.0.1:PORT; {location} }}") as port:
        yield port
