"""A real srvd for the system tests: a folder with an application, a daemon, its control socket, requests.

Each daemon has its own folder, port and socket. Fixtures that start one and claim that nothing of it is left are in
conftest.py, the applications in apps/.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from srvd.client.connection import Client
from srvd.errors import SrvdError
from srvd.linux.processes import procfs
from tests.support import apps
from tests.support.load import Load, load_on
from tests.support.srvctl_process import run_srvctl
from tests.support.waiting import wait_for

BIN = Path(sys.executable).parent
BOOT = 30.0
"""Seconds that anything may take which takes a fraction of one: the machine may be busy with something else."""

Map = dict[str, Any]

KILL = signal.SIGKILL  # in the class below `signal` is a method


class Srvd:
    """One daemon. `flags` and `config` are what a user would give; the application is `app.py` in the folder."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        config: str = "",
        env: Mapping[str, str] | None = None,
        fds: tuple[int, ...] = (),
    ) -> None:
        self.folder = folder
        self.socket = folder / "control.sock"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.adopted: list[psutil.Process] = []  # of a daemon that was killed: they are nobody's children of ours
        self.daemonized = 0  # pid of a daemon that went into the background
        self.env = {name: value for name, value in os.environ.items() if not _is_ours(name)}
        self.env |= {"PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        self.pass_fds = fds
        self._addresses: dict[str, tuple[str, int]] = {}
        command = [str(BIN / "srvd"), "start", "--socket", str(self.socket)]
        if config:
            self.configure(config)
            command += ["-c", str(folder / "srvd.toml")]
        else:
            command += ["app:app", "--bind", "127.0.0.1:0"]
        self.command = [*command, *flags]

    def __repr__(self) -> str:
        return f"<Srvd in {self.folder}>"

    # -- what is on disk ------------------------------------------------------------------------------------------

    def deploy(self, code: str, name: str = "app") -> None:
        """Puts code on disk."""
        (self.folder / f"{name}.py").write_text(code)

    def good(self, release: str = "one", before: str = "") -> None:
        self.deploy(apps.good(release, before))

    def configure(self, config: str) -> None:
        (self.folder / "srvd.toml").write_text(config)

    def let_others_in(self) -> None:
        """The folders of tests are the user's own; a pool's user, or whoever has a role, must get in."""
        for folder in (self.folder, *self.folder.parents[:-1]):
            if folder.stat().st_uid == os.geteuid():
                folder.chmod(folder.stat().st_mode & 0o7777 | 0o055)

    def logged(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_logged(self, text: str, within: float = BOOT) -> None:
        try:
            wait_for(lambda: text in self.logged(), within)
        except AssertionError:
            msg = f"{text!r} is not in the log after {within} s"
            raise AssertionError(msg) from None

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        if self.process is not None:
            return self.process.pid
        assert self.daemonized, "it is not running"
        return self.daemonized

    def start(self, *, ready: bool = True, cwd: Path | None = None) -> Srvd:
        self._addresses.clear()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=cwd or self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.pass_fds,
            )
        if ready:
            wait_for(self.is_ready, within=BOOT)
        return self

    def run(self, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Starts one that is expected to end by itself; what it printed."""
        return subprocess.run(
            self.command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL, pass_fds=self.pass_fds,
        )  # fmt: skip

    def daemonize(self, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Starts it with --daemonize; what the command printed when it returned."""
        self.command.append("--daemonize")
        done = self.run(timeout)
        if done.returncode == 0:
            self.daemonized = int(self.status()["daemon"]["pid"])
        return done

    def is_ready(self) -> bool:
        assert self.process is None or self.process.poll() is None, f"srvd ended with {self.process.returncode}"
        if not self.socket.exists():  # a client that asks in vain looks for other daemons
            return False
        try:
            status = self.status()
        except SrvdError:  # the socket is being opened
            return False
        return all(pool["state"] == "ready" for pool in status["pools"]) and status["daemon"]["state"] == "running"

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 40) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process is not None
        code = self.process.wait(timeout)
        self.process = None
        return code

    def stop(self) -> int:
        """SIGTERM; its exit code (0 for one in the background, whose code is its parent's)."""
        self.signal(signal.SIGTERM)
        if self.process is not None:
            return self.wait()
        gone = psutil.Process(self.daemonized)
        gone.wait(40)
        self.daemonized = 0
        return 0

    # -- its processes --------------------------------------------------------------------------------------------

    def family(self) -> list[psutil.Process]:
        """The daemon's zygotes and workers."""
        children = descendants(self.pid)
        self.adopted = [one for one in self.adopted if is_alive(one)]
        adopted = {grown for one in self.adopted for grown in (one, *descendants(one.pid))}
        return [*children, *adopted.difference(children)]

    def die(self, number: int = KILL) -> list[psutil.Process]:
        """The daemon is killed, and nobody else; those that it leaves."""
        left = self.family()
        self.signal(number)
        if self.process is not None:
            assert self.wait() == -number
        self.adopted = left
        return left

    def zygotes(self) -> list[psutil.Process]:
        family = {process.pid: process for process in self.family()}
        workers = {worker["pid"] for pool in self.status()["pools"] for worker in pool["workers"]}
        # Who was forked in this moment is not in the status yet, and has the title of its zygote: but also its parent.
        return [
            process
            for process in family.values()
            if process.pid not in workers and process.is_running() and process.ppid() not in family
        ]

    def only_zygote(self) -> psutil.Process:
        """The one that is there, once those that a start or a failed load has left are gone."""
        (zygote,) = wait_for(lambda: found if len(found := self.zygotes()) == 1 else [], within=BOOT)
        return zygote

    def fds(self) -> int:
        """How many descriptors the daemon has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def kill_worker(self, name: str = "", pool: str = "web") -> str:
        """SIGKILL to one worker – the named one, or the oldest that serves; its name."""
        serving = self.serving(pool)
        worker = next(worker for worker in serving if name in ("", worker["id"]))
        os.kill(worker["pid"], signal.SIGKILL)
        return str(worker["id"])

    # -- control --------------------------------------------------------------------------------------------------

    def listens(self) -> bool:
        """Whether the control socket takes clients: its file is there a moment before."""
        try:
            self.client().close()
        except SrvdError:
            return False
        return True

    def client(self) -> Client:
        return Client.connect(str(self.socket), timeout=BOOT)

    def call(self, method: str, **args: Any) -> Map:
        """One request over the control socket. Raises `SrvdError`."""
        with self.client() as client:
            return client.call(method, args)

    def ctl(self, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """The real srvctl, in a process of its own."""
        return run_srvctl(["-s", str(self.socket), *words], self.env, self.folder, timeout)

    def ctl_json(self, *words: str) -> Map:
        done = self.ctl("--json", *words)
        assert done.stdout, f"srvctl {words}: {done.returncode} {done.stderr}"
        result: Map = json.loads(done.stdout)
        return result

    def status(self) -> Map:
        return self.call("status")

    def pool(self, name: str = "web") -> Map:
        pool: Map = next(pool for pool in self.status()["pools"] if pool["name"] == name)
        return pool

    def serving(self, name: str = "web") -> list[Map]:
        return [worker for worker in self.pool(name)["workers"] if worker["state"] == "serving"]

    def names(self, pool: str = "web") -> set[str]:
        """Of the workers that serve."""
        return {str(worker["id"]) for worker in self.serving(pool)}

    def wait_serving(self, count: int, *, without: str = "", pool: str = "web", within: float = BOOT) -> None:
        """Returns when `count` workers serve, none of them the one named."""
        wait_for(lambda: len(names := self.names(pool)) == count and without not in names, within)

    def wait_operation(self, op: int, reached: str, within: float = BOOT) -> Map:
        """The operation as soon as `reached` is its state or its phase."""

        def look() -> Map | None:
            shown = self.operation(op)
            return shown if reached in (shown["state"], shown["phase"]) else None

        found = wait_for(look, within)
        assert found is not None
        return found

    def operation(self, op: int) -> Map:
        shown: Map = self.call("op.show", id=op)["operation"]
        return shown

    def order(self, method: str, **args: Any) -> int:
        """An order that is begun and not waited for; the number of its operation."""
        operation: Map = self.call(method, wait=False, **args)["operation"]
        return int(operation["id"])

    def deaths(self, **args: Any) -> list[Map]:
        """Certificates, the latest first, those of ordered departures among them."""
        deaths: list[Map] = self.call("why", **{"all": True, **args})["deaths"]
        return deaths

    # -- requests -------------------------------------------------------------------------------------------------

    def address(self, listener: str = "web") -> tuple[str, int]:
        """Host and port of a TCP listener, as the daemon said when it was first asked."""
        if listener not in self._addresses:
            for entry in self.status()["listeners"]:
                host, _, port = entry["address"].rpartition(":")
                if port.isdecimal():
                    self._addresses.setdefault(entry["name"], (host.strip("[]"), int(port)))
        return self._addresses[listener]

    def connect(self, listener: str = "web", timeout: float = BOOT) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address(listener), timeout=timeout)

    def get(self, path: str = "/", listener: str = "web") -> str:
        """The body of an answer that must be a 200."""
        connection = self.connect(listener)
        try:
            return ask(connection, path)
        finally:
            connection.close()

    def under_load(self, clients: int = 8, path: str = "/") -> AbstractContextManager[Load]:
        return load_on(self.address(), clients, path)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below this one, with zombies. psutil would read those of the whole machine."""
    found = []
    for child in procfs.children(pid):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was looked at
            found += [psutil.Process(child), *descendants(child)]
    return found


def ask(connection: http.client.HTTPConnection, path: str = "/") -> str:
    """One request on an open connection; the body of an answer that must be a 200."""
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    assert response.status == 200, f"{response.status} {body}"
    return body


def toml(pool: str = "", more: str = "", *, bind: str = "127.0.0.1:0") -> str:
    """A configuration with one pool and one listener, both called web; `pool` has more lines of the pool."""
    return f'[listeners.web]\nbind = ["{bind}"]\n\n[pools.web]\napp = "app:app"\n{pool}\n\n{more}\n'


class _Ports:
    """A block of ports below those that the kernel gives to clients. It is reserved for this process until it ends, by
    an abstract Unix socket.
    """

    SIZE = 128

    def __init__(self) -> None:
        of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        self._reservation = socket.socket(socket.AF_UNIX)
        for first in range(of_clients // 2, of_clients - self.SIZE, self.SIZE):
            with contextlib.suppress(OSError):  # another process has it
                self._reservation.bind(f"\0ports-of-tests-{first}")
                self._ports = itertools.cycle(range(first, first + self.SIZE))
                return
        msg = "too many test processes: no block of ports is left"
        raise RuntimeError(msg)

    def free(self) -> int:
        while True:
            port = next(self._ports)
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                return port


_ports = _Ports()


def free_port() -> int:
    """A free port, for tests that must name one. No client and no other test takes it meanwhile."""
    return _ports.free()


def _is_ours(variable: str) -> bool:
    return variable.startswith("SRVD_") or variable in ("PORT", "WEB_CONCURRENCY")
