"""A real srvd for the system tests: a folder with an application, a daemon, its control socket, and a load on it.

Each daemon has its own folder, port and socket; `stop` ends it and asserts that nothing of it is left.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from srvd.ctl.client import Client
from tests.support import wait_for

BIN = Path(sys.executable).parent

GOOD = """
import os, time
RELEASE = {release!r}
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/sleep/"):
        time.sleep(float(path[7:]))
    if path == "/exit":
        os._exit(3)
    body = (RELEASE + " " + environ["srvd.worker"] + " " + str(os.getpid())).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

BROKEN = {
    "raises at import": "raise RuntimeError('the deploy is broken')\n",
    "is a syntax error": "def app(:\n",
    "hangs at import": "import time\ntime.sleep(3600)\n",
    "calls os._exit": "import os, sys\nsys.stderr.write('last words\\n')\nsys.stderr.flush()\nos._exit(0)\n",
}
"""What the code on disk can be like after a bad deploy."""


class Srvd:
    """One daemon. `flags` and `config` are what a user would give; the application is `app.py` in the folder."""

    def __init__(self, folder: Path, *flags: str, config: str = "", env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.socket = folder / "control.sock"
        self.env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        for name in list(self.env):
            if name.startswith("SRVD_") or name in ("PORT", "WEB_CONCURRENCY"):
                del self.env[name]
        self.env |= env or {}
        command = [str(BIN / "srvd"), "start", "--socket", str(self.socket)]
        if config:
            (folder / "srvd.toml").write_text(config)
            command += ["-c", str(folder / "srvd.toml")]
        else:
            command += ["app:app", "--bind", "127.0.0.1:0"]
        self.command = [*command, *flags]
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    def deploy(self, code: str) -> None:
        """Puts new code on disk."""
        (self.folder / "app.py").write_text(code)

    def good(self, release: str = "one") -> None:
        self.deploy(GOOD.format(release=release))

    def start(self, *, ready: bool = True) -> Srvd:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if ready:
            wait_for(self.is_ready, within=30)
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"srvd ended with {self.process.returncode}:\n{self.logged()}"
        if not self.socket.exists():
            return False
        try:
            status = self.status()
        except Exception as exc:  # the socket is being opened
            return not exc
        return all(pool["state"] == "ready" for pool in status["pools"]) and status["daemon"]["state"] == "running"

    def stop(self) -> None:
        """Asks it to stop, and looks whether anything is left."""
        process = self.process
        if process is None:
            return
        family = self.family() if process.poll() is None else []
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                for one in family:
                    _kill(one)
                process.kill()
                process.wait(10)
                raise
        self.process = None
        wait_for(lambda: not [one for one in family if _lives(one)], within=10)
        assert not self.socket.exists(), "the control socket is left"

    def family(self) -> list[psutil.Process]:
        """The daemon's zygotes and workers."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def logged(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # -- control --------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def call(self, method: str, **args: Any) -> dict[str, Any]:
        """One request over the control socket. Raises `SrvdError`."""
        with Client.connect(str(self.socket)) as client:
            return client.call(method, args)

    def ctl(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """The real srvctl."""
        command = [str(BIN / "srvctl"), "-s", str(self.socket), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=self.env, cwd=self.folder)

    def ctl_json(self, *words: str) -> dict[str, Any]:
        done = self.ctl("--json", *words)
        assert done.stdout, f"srvctl {words}: {done.returncode} {done.stderr}"
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def status(self) -> dict[str, Any]:
        return self.call("status")

    def pool(self, name: str = "web") -> dict[str, Any]:
        pool: dict[str, Any] = next(pool for pool in self.status()["pools"] if pool["name"] == name)
        return pool

    def serving(self, name: str = "web") -> list[dict[str, Any]]:
        return [worker for worker in self.pool(name)["workers"] if worker["state"] == "serving"]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.status()["listeners"][0]["address"].rpartition(":")
        return host, int(port)

    # -- requests -------------------------------------------------------------------------------------------------

    def get(self, path: str = "/", timeout: float = 30) -> str:
        host, port = self.address
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, f"{response.status} {body}"
            return body
        finally:
            connection.close()

    @contextmanager
    def under_load(self, clients: int = 8, path: str = "/") -> Iterator[Load]:
        """Clients with keep-alive connections ask all the time; see `Load` for what is known afterwards."""
        load = Load(self.address, path)
        threads = [threading.Thread(target=load.client, name=f"client {n}") for n in range(clients)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: load.answered >= clients, within=20)
            yield load
        finally:
            load.over = True
            for thread in threads:
                thread.join(60)


@dataclass
class Load:
    """What clients met: `failed` has a line for each request that was not answered with 200."""

    address: tuple[str, int]
    path: str
    over: bool = False
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    bodies: set[str] = field(default_factory=set)
    gap: float = 0.0  # the longest time in which no client at all was answered
    last: float = 0.0

    def client(self) -> None:
        """One client: it keeps its connection until the server says otherwise, and never repeats a request."""
        connection: http.client.HTTPConnection | None = None
        while not self.over:
            if connection is None:
                connection = http.client.HTTPConnection(*self.address, timeout=30)
            try:
                connection.request("GET", self.path)
                response = connection.getresponse()
                body = response.read().decode()
            except (OSError, http.client.HTTPException) as exc:
                self.failed.append(f"{time.monotonic():.3f} {exc!r}")
                connection.close()
                connection = None
                continue
            self._count(response.status, body)
            if response.will_close:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _count(self, status: int, body: str) -> None:
        now = time.monotonic()
        if self.last:
            self.gap = max(self.gap, now - self.last)
        self.last = now
        self.answered += 1
        self.bodies.add(body.split()[0])
        if status != 200:
            self.failed.append(f"{now:.3f} {status} {body[:80]}")


def _lives(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def _kill(process: psutil.Process) -> None:
    if _lives(process):
        process.kill()


def free_port() -> int:
    """A port that was free a moment ago, for tests that must name one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
