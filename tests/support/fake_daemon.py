"""A daemon without pools: a scripted backend behind the real control server, in a thread or as a program of its own.

For the tests of the control socket and of `srvctl`; supervises nothing.

As a program (`python -m tests.support.fake_daemon SOCKET NAME [ROLES-AS-JSON]`) its orders end by themselves, as the
pool's name says: "broken" fails with a traceback, "partial" and "busy" with those codes, "slow" never ends, others are
done.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from srvd.core.model import Level
from srvd.daemon.control.server import ControlServer, Limits, Peer
from srvd.daemon.loop import Loop
from srvd.errors import CODES, Busy, ConfigInvalid, NoSuchOperation, NoSuchPool, NoSuchWorker, SrvdError

T = TypeVar("T")

TRACEBACK = 'Traceback (most recent call last):\n  File "shop.py", line 3\nImportError: no \x1b[31mred\x1b[0m module\n'


def worker(number: int, pool: str = "web") -> dict[str, Any]:
    return {
        "id": f"{pool}/3#{number}",
        "pid": 1000 + number,
        "state": "serving",
        "generation": 3,
        "requests": 12_345,
        "rss_bytes": 21 << 20,
        "busy": number % 2,
        "uptime_s": 3_700.0,
    }


def pool(name: str = "web", state: str = "ready", wish: int = 4) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "wsgi",
        "state": state,
        "generation": 3,
        "desired": wish,
        "configured": 4,
        "serving": wish,
        "booting": 0,
        "draining": 0,
        "override": wish if wish != 4 else None,
        "paused": False,
        "restarts": 0,
        "requests": 40,
        "workers": [worker(number, name) for number in range(wish)],
    }


STACKS = """\
Thread 0x7f02 (most recent call first):
  File "/opt/srvd/worker/wsgi/scheduler.py", line 252 in _await_call
  File "/usr/lib/python3/threading.py", line 1002 in _bootstrap
Current thread 0x7f01 (most recent call first):
  File "/srv/shop/stock\x1b[31m.py", line 61 in reserve
  File "/opt/srvd/worker/wsgi/exchange.py", line 95 in start
  File "/opt/srvd/zygote/main.py", line 66 in live
"""

DEATH = {
    "worker": "web/3#7",
    "pid": 1007,
    "cause": "signal",
    "summary": "killed by SIGKILL in a request",
    "exit_code": None,
    "signal": 9,
    "out_of_memory": True,
    "at": 1_700_000_000.0,
    "lived_s": 62.5,
    "ready": True,
    "request": "GET /report\x1b]0;owned\x07",
    "request_age": 12.25,
    "requests": 99,
    "traceback": TRACEBACK,
    "stderr": "out of\x9bmemory\n",
    "stacks": STACKS,
}

RETIRED = {
    **DEATH,
    "worker": "web/2#1",
    "cause": "retired",
    "summary": "was told to leave (reload)",
    "traceback": "",
    "stderr": "",
    "stacks": "",
}

DEATHS = [DEATH, RETIRED, *({**RETIRED, "worker": f"web/2#{number}"} for number in (2, 3)), DEATH]

_FRAME = {"file": "/srv/shop/views\x1b[31m.py", "line": 12, "function": "report"}
_WAITING = {"file": "/usr/lib/python3/threading.py", "line": 629, "function": "wait"}
_RUN = {"file": "/usr/lib/python3/threading.py", "line": 982, "function": "run"}
_LOOP = {"file": "/opt/lib/srvd/worker/loop.py", "line": 100, "function": "turn"}
_OURS = {"file": "/opt/lib/srvd/zygote/main.py", "line": 65, "function": "live"}
_SHELL = {"file": "<string>", "line": 1, "function": "<module>"}

PROCESS = {
    "id": "web/3#7",
    "kind": "worker",
    "pool": "web",
    "pid": 1007,
    "state": "serving",
    "process": "running",
    "requests": [{"lane": 1, "line": "GET /report\x1b]0;owned\x07", "age_s": 61.5}],
    "threads": [
        {"id": "0x7f01", "name": "", "frames": [_FRAME, {"file": "", "line": 0, "function": "..."}]},
        {"id": "0x7f02", "name": "", "frames": [_WAITING, _RUN, _LOOP]},
        {"id": "0x7f03", "name": "pool", "frames": [_WAITING, _RUN, _LOOP]},
        {"id": "0x7f04", "name": "", "frames": [_LOOP, _OURS, _SHELL]},
    ],
    "problem": "",
}

STOPPED = {
    **PROCESS,
    "id": "web/3#8",
    "pid": 1008,
    "process": "stopped",
    "requests": [],
    "threads": [],
    "problem": "it is stopped, by SIGSTOP or a debugger: SIGCONT lets it go on",
}

SETTINGS = [
    {"key": "pools.web.workers", "value": 4, "origin": "/etc/shop.toml:12", "unit": "", "help": "Number of workers"},
    {"key": "pools.web.boot_timeout", "value": 60.0, "origin": "default", "unit": "s", "help": "To load the app"},
    {"key": "pools.web.max_body", "value": 1 << 30, "origin": "default", "unit": "bytes", "help": "Longest body"},
    {"key": "control.roles", "value": {"viewer": ["%adm"]}, "origin": "shop.toml:3", "unit": "", "help": "Who may"},
]  # fmt: skip


class FakeBackend:
    """Operations that end when the test says so, or by their pool's name once `by_itself`."""

    def __init__(self) -> None:
        self.operations: dict[int, dict[str, Any]] = {}
        self.pools = [pool()]
        self.asked: list[tuple[str, dict[str, Any], Peer]] = []
        self.raises: Exception | None = None
        self.server: ControlServer | None = None
        self.loop: Loop
        self.by_itself = False
        self.stopped: Callable[[], None] = lambda: None

    def query(self, method: str, args: dict[str, Any], peer: Peer) -> dict[str, Any]:
        self.asked.append((method, args, peer))
        if self.raises is not None:
            raise self.raises
        match method:
            case "ping":
                return {"pid": os.getpid(), "version": "0.1.0", "name": "fake", "uptime_s": 12.5}
            case "status":
                return self._status()
            case "workers":
                every = [self._detailed(entry) for one in self.pools for entry in one["workers"]]
                return {"workers": every[args["offset"] : args["offset"] + args["limit"]], "total": len(every)}
            case "why":
                return {"deaths": [death for death in DEATHS if args["worker"] in ("", death["worker"])]}
            case "config":
                return {"settings": SETTINGS}
            case "op.list":
                return {"operations": [op for op in self.operations.values() if op["state"] == "running"]}
            case _:
                ended = [op for op in self.operations.values() if op["state"] != "running"]
                return {"operations": ended[: args["limit"]], "total": len(ended)}

    def ask(self, method: str, args: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        if self.raises is not None:
            raise self.raises
        if args["worker"] == "web/3#404":
            raise NoSuchWorker("there is no worker 'web/3#404'")
        self._later(lambda: reply({"processes": [PROCESS, STOPPED], "total": 3}))

    def order(self, method: str, args: dict[str, Any], peer: Peer) -> int:
        self.asked.append((method, args, peer))
        if self.raises is not None:
            raise self.raises
        if method == "op.cancel":
            if self.operation(args["id"])["state"] == "running":
                self._later(lambda: self.finish(args["id"], "cancelled"))
            return int(args["id"])
        name = args.get("pool", "")
        if name == "nothing":
            raise NoSuchPool(f"{method}: there is no pool {name!r}", hint="the pools are: web")
        if name == "invalid":
            raise ConfigInvalid("1 problem; nothing was changed\nshop.toml:3: no wrokers; did you mean workers?")
        if name == "busy":
            raise Busy(f"{method} {name}: another operation is under way")
        op = len(self.operations) + 1
        self.operations[op] = {
            "id": op,
            "kind": method,
            "pool": name or "web",
            "actor": {"uid": peer.uid, "pid": peer.pid, "name": peer.name},
            "args": args,
            "state": "running",
            "phase": "boot",
            "created_at": 1_700_000_000.0,
            "ended_at": None,
            "timeline": [{"at": 1_700_000_000.0, "phase": "boot", "message": "boots 4 workers"}],
            "result": None,
            "error": None,
        }
        if self.by_itself and name != "slow":
            self._later(lambda: self._play(op, method, name))
        return op

    def operation(self, op: int) -> dict[str, Any]:
        if op not in self.operations:
            raise NoSuchOperation(f"operation {op}: there is none", hint="see `srvctl history`")
        return self.operations[op]

    def finish(self, op: int, state: str = "done", error: SrvdError | None = None) -> None:
        step = {"at": 1_700_000_001.5, "phase": state, "message": "4 serving"}
        self.operations[op]["timeline"].append(step)
        self.operations[op].update(
            state=state,
            ended_at=1_700_000_001.5,
            error=error.to_wire() if error else None,
            result={} if not error else None,
        )
        assert self.server is not None
        self.server.ended(op)

    def _play(self, op: int, method: str, name: str) -> None:
        assert self.server is not None
        for done in range(3):
            self.server.progress(op, "boot", done, 3, "worker web/4#1 is ready")
        self.server.publish("operation", "scale.done", {"text": f"operation {op} ended", "operation": op})
        if name == "broken":
            self.finish(
                op,
                "failed",
                CODES["load_failed"]("load web@4: ImportError", detail={"traceback": TRACEBACK, "step": "load"}),
            )
        elif name == "partial":
            self.finish(op, "failed", CODES["partial"]("scale: 2 of 4 came up"))
        else:
            self.finish(op)
        if method == "stop":
            self.stopped()

    def _later(self, callback: Callable[[], None]) -> None:
        self.loop.call_later(0.02, callback)

    def _status(self) -> dict[str, Any]:
        return {
            "daemon": {"pid": os.getpid(), "version": "0.1.0", "state": "running", "uptime_s": 7_200.0, "name": "fake"},
            "pools": self.pools,
            "listeners": [
                {"name": "web", "address": "127.0.0.1:8000", "scheme": "http", "certificate_expires_at": None},
                {"name": "tls", "address": "127.0.0.1:8443", "scheme": "https", "certificate_expires_at": 1.9e9},
            ],
            "operations": [op for op in self.operations.values() if op["state"] == "running"],
        }

    def _detailed(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "connections": 3, "request": "GET /slow\x1b[2J", "request_age_s": 4.5}


class Fake:
    """The control server with a fake backend, on a loop in a thread of its own."""

    def __init__(self, path: str, roles: Mapping[str, list[str]] | None = None, limits: Limits | None = None) -> None:
        self.path = path
        self.backend = FakeBackend()
        self.logged: list[tuple[Level, str, Mapping[str, object]]] = []
        self._roles = roles or {}
        self._limits = limits
        self._up = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._mail, self._bell = socket.socketpair()
        self._letters: deque[Callable[[], object]] = deque()

    def __enter__(self) -> Fake:
        self._thread.start()
        assert self._up.wait(10)
        if self._problem is not None:
            self._thread.join()
            raise self._problem
        return self

    def __exit__(self, *_: object) -> None:
        self.post(self.loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._mail.close()
        self._bell.close()

    def _run(self) -> None:
        self.loop = self.backend.loop = Loop()
        self.loop.add_reader(self._mail.fileno(), self._read_mail)
        self.server = ControlServer(self.loop, self.backend, self._log, "fake", self._limits)
        self.backend.server = self.server
        try:
            self.server.open(self.path, self._roles)
        except BaseException as exc:
            self._problem = exc
            return
        finally:
            self._up.set()
        self.loop.run()
        for fd in self.server.close("stopped"):
            os.close(fd)
        self.loop.close()

    def _log(self, level: Level, text: str, fields: Mapping[str, object]) -> None:
        self.logged.append((level, text, fields))

    def do(self, call: Callable[[], T]) -> T:
        """The result of a call made on the server's loop, or what it raised."""
        done: Future[T] = Future()

        def on_loop() -> None:
            try:
                done.set_result(call())
            except BaseException as exc:
                done.set_exception(exc)

        self.post(on_loop)
        return done.result(10)

    def post(self, call: Callable[[], object]) -> None:
        """Have it called on the server's loop, and do not wait for it."""
        self._letters.append(call)
        self._bell.send(b"!")

    def _read_mail(self) -> None:
        self._mail.recv(1)
        self._letters.popleft()()


def _serve(path: str, name: str, roles: Mapping[str, list[str]]) -> None:
    loop = Loop()
    backend = FakeBackend()
    backend.loop = loop
    backend.by_itself = True
    backend.stopped = loop.stop
    backend.pools = json.loads(os.environ.get("FAKE_POOLS", "null")) or backend.pools
    server = ControlServer(loop, backend, lambda *_: None, name)
    backend.server = server
    server.open(path, roles)
    loop.on_signal(signal.SIGTERM, loop.stop)
    server.publish("worker", "worker.ready", {"text": "worker web/3#1 ready after 0.8 s\x1b[31m", "worker": "web/3#1"})
    server.publish("daemon", "daemon.ready", {"text": "srvd fake is ready"})
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    loop.run()
    server.close("stopped")  # what it left open is closed by the end of the process


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
