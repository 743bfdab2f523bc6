"""Carries a plan out on a real daemon under load, and keeps account of what was lost, and of what was untrue.

Draws nothing (plan.py does), and prints nothing (the program and the test do).
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import psutil

from srvd.errors import NoDaemon, ShuttingDown
from tests.soak.plan import Action
from tests.support import apps
from tests.support.control_attacks import ATTACKS
from tests.support.daemon import Srvd, toml
from tests.support.load import Failure
from tests.support.waiting import wait_for

__all__ = ["CONFIG", "Report", "Soak", "complaints"]

CONFIG = toml(
    'workers = 4\nhealth = "/"\nboot_timeout = "20s"\ndrain_timeout = "20s"\nbake = "1s"\nrollback_window = "2s"'
)
_SETTLE = 90.0
_REPAIR = 5.0
"""Seconds in which a killed zygote has a successor."""


T = TypeVar("T")


def asked(question: Callable[[], T]) -> T:
    """Its answer; asked again of the next program when the daemon was just upgraded."""
    while True:
        try:
            return question()
        except ShuttingDown as goodbye:
            if goodbye.detail.get("reason") != "upgrade":
                raise


class Footprint(NamedTuple):
    """What the daemon, its zygotes and its workers hold when nothing happens."""

    fds: int
    rss: int
    processes: int
    worker_fds: int  # of the worker that has most

    @classmethod
    def of(cls, srvd: Srvd) -> Footprint:
        workers = [worker["pid"] for worker in srvd.serving()]
        most = max(len(os.listdir(f"/proc/{pid}/fd")) for pid in workers)
        return cls(srvd.fds(), psutil.Process(srvd.pid).memory_info().rss, len(srvd.family()), most)


class Report(NamedTuple):
    answered: int
    lost: int  # requests inside a process that was killed
    unexplained: list[Failure]
    untrue: list[str]  # answers that were not
    outcomes: dict[str, dict[int, int]]  # kind → exit code → how often
    repair: list[float]  # seconds from a kill until as many workers served as before
    gap: float  # the longest time in which nobody was answered
    before: Footprint
    after: Footprint


def complaints(report: Report) -> list[str]:
    """What must not be in a report; empty if all is well."""
    before, after = report.before, report.after
    found = [f"lost, and nobody was killed: {failure}" for failure in report.unexplained]
    found += [f"untrue: {answer}" for answer in report.untrue]
    # A few descriptors come and go: connections of srvctl, a timer.
    if after.fds > before.fds + 4:
        found.append(f"the daemon has {after.fds} descriptors, and had {before.fds}")
    if after.worker_fds > before.worker_fds + 20:  # the clients' connections
        found.append(f"a worker has {after.worker_fds} descriptors, and had {before.worker_fds}")
    if after.processes != before.processes:
        found.append(f"there are {after.processes} processes, and were {before.processes}")
    if after.rss > before.rss + (12 << 20):
        found.append(f"the daemon has {after.rss >> 20} MiB, and had {before.rss >> 20}")
    return found


class Soak:
    def __init__(self, srvd: Srvd, actions: list[Action], every: float, say: Callable[[str], None]) -> None:
        self._srvd = srvd
        self._actions = actions
        self._every = every
        self._say = say
        self._release = "one"
        self._killed: dict[int, float] = {}  # ports of clients that a killed worker served → when
        self._untrue: list[str] = []
        self._outcomes: dict[str, Counter[int]] = {}
        self._repair: list[float] = []
        self._orders: queue.Queue[Action | None] = queue.Queue()
        self._disturbed = -_REPAIR
        """When a zygote was killed last: an order that needs one may fail then, but not lie."""

    def run(self, clients: int = 16) -> Report:
        srvd = self._srvd
        before = Footprint.of(srvd)
        orders = threading.Thread(target=self._obey, name="orders", daemon=True)
        with srvd.under_load(clients) as load:
            orders.start()
            began = time.monotonic()
            for number, action in enumerate(self._actions):
                self._do(action)
                due = began + (number + 1) * self._every
                time.sleep(max(due - time.monotonic(), 0.0))
            self._orders.put(None)
            orders.join(_SETTLE * 4)
            assert not orders.is_alive(), "an order was never answered"
            self._settle()
            load.more()
        lost = [failure for failure in load.failed if self._was_killed(failure)]
        unexplained = [failure for failure in load.failed if not self._was_killed(failure)]
        wait_for(lambda: len(srvd.family()) <= before.processes, within=_SETTLE)
        outcomes = {kind: dict(codes) for kind, codes in self._outcomes.items()}
        after = Footprint.of(srvd)
        return Report(
            load.answered, len(lost), unexplained, self._untrue, outcomes, self._repair, load.gap, before, after
        )

    def _was_killed(self, failure: Failure) -> bool:
        killed = self._killed.get(failure.port)
        return killed is not None and -1.0 < failure.at - killed < 35.0

    # -- what comes at its time -----------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        match action.kind:
            case "kill a worker":
                self._kill_worker(action)
            case "kill the zygote":
                self._kill_zygote(action)
            case "attack the control socket":
                self._attack(action)
            case _:
                self._orders.put(action)

    def _count(self, action: Action, code: int, told: str = "") -> None:
        self._outcomes.setdefault(action.kind, Counter())[code] += 1
        self._say(f"{action.kind}: {code} {told}".rstrip())

    def _kill_worker(self, action: Action) -> None:
        """Its clients are counted while it is stopped: they, and nobody else, may lose a request."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            serving = sorted(asked(self._srvd.serving), key=lambda worker: str(worker["id"]))
            victim = serving[action.dice % len(serving)]
            process = psutil.Process(victim["pid"])
            process.suspend()
            # Until it stands still it may accept one more.
            wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
            now = time.monotonic()
            connections = process.net_connections("tcp")
            self._killed |= {connection.raddr.port: now for connection in connections if connection.raddr}
            os.kill(victim["pid"], signal.SIGKILL)
            threading.Thread(target=self._time_repair, args=(victim["id"], len(serving)), daemon=True).start()
            self._count(action, 0, victim["id"])

    def _time_repair(self, victim: str, count: int) -> None:
        began = time.monotonic()
        with contextlib.suppress(AssertionError, NoDaemon):  # scaled down meanwhile, or all is over
            wait_for(lambda: len(names := asked(self._srvd.names)) >= count and victim not in names, within=5)
            self._repair.append(time.monotonic() - began)

    def _kill_zygote(self, action: Action) -> None:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            zygotes = asked(self._srvd.zygotes)
            if zygotes:
                self._disturbed = time.monotonic()
                zygotes[action.dice % len(zygotes)].kill()
                self._count(action, 0)

    def _attack(self, action: Action) -> None:
        attack = ATTACKS[action.dice % len(ATTACKS)]
        with contextlib.suppress(OSError):  # being thrown out is what the attacker expects
            attack(str(self._srvd.socket), random.Random(action.dice))
        self._count(action, 0, attack.__name__.strip("_").replace("_", " "))

    # -- orders, one after another --------------------------------------------------------------------------------

    def _obey(self) -> None:
        while (action := self._orders.get()) is not None:
            try:
                self._order(action)
            except BaseException as exc:
                self._untrue.append(f"{action.kind}: {exc!r}")

    def _order(self, action: Action) -> None:
        srvd, began = self._srvd, time.monotonic()
        match action.kind:
            case "reload good":
                former, self._release = self._release, f"r{action.dice}"
                srvd.good(self._release)
                code, told = self._ctl("reload")
                if code:
                    srvd.good(former)
                    self._release = former
                self._claim(action, srvd.get().split()[0] == self._release, f"{told}; it answers {srvd.get()}")
            case "reload broken":
                kind = sorted(set(apps.BROKEN) - {"hangs at import"})[action.dice % (len(apps.BROKEN) - 1)]
                srvd.deploy(apps.BROKEN[kind])
                code, told = self._ctl("reload")
                srvd.good(self._release)
                self._claim(action, code != 0 and srvd.get().split()[0] == self._release, f"{code} {told}")
                code = 0
            case "scale":
                size = 2 + action.dice % 6
                code, told = self._ctl("scale", str(size))
                wish = srvd.pool()["desired"]
                self._claim(action, (wish == size) == (code == 0), f"{code} {told}; {wish} are wished")
            case "recycle":
                code, told = self._ctl("recycle")
            case _:
                pid = srvd.pid
                code, told = self._ctl("upgrade")
                self._claim(action, srvd.status()["daemon"]["pid"] == pid, told)
        self._count(action, code, told if code else "")
        if code and self._disturbed < began - _REPAIR:
            self._untrue.append(f"{action.kind} failed, and nobody killed a zygote meanwhile: {code} {told}")

    def _ctl(self, *words: str) -> tuple[int, str]:
        done = self._srvd.ctl(*words, timeout=120)
        return done.returncode, (done.stderr or done.stdout).strip()

    def _claim(self, action: Action, true: bool, told: str) -> None:
        if not true:
            self._untrue.append(f"{action.kind}: {told}")

    def _settle(self) -> None:
        """Nothing is left to do, and the size is the configured one."""
        srvd = self._srvd
        wait_for(lambda: not srvd.call("op.list")["operations"], within=_SETTLE, every=0.1)
        code, told = self._ctl("scale", "--reset")
        if code:
            self._untrue.append(f"scale --reset: {code} {told}")
        wait_for(lambda: srvd.pool()["state"] == "ready" and srvd.pool()["draining"] == 0, within=_SETTLE, every=0.1)
        unended = [
            operation
            for operation in srvd.call("history")["operations"]
            if operation["state"] in ("queued", "running", "committing")
        ]
        self._untrue.extend(f"never ended: {operation}" for operation in unended)
