"""A stage for real zygotes and workers: a performer on a loop, its events kept. Not a fixture itself.

`close` ends what was started on it and claims that nothing is left: no child, no descriptor.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from srvd.config.settings import Config, DaemonSettings, ListenerSettings, PoolSettings
from srvd.core.actions import Fork, KillWorker, KillZygote, StartZygote, StopZygote, TellWorker, WorkerCommand
from srvd.core.events import Event, WorkerForked, WorkerGone, WorkerReport, WorkerSaid, ZygoteGone, ZygoteLoaded
from srvd.core.model import Revision
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.performer import Performer
from srvd.daemon.children.processes import Processes
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.listeners import Listeners
from srvd.daemon.loop import Loop
from srvd.ids import GenerationId, WorkerId
from srvd.linux.processes import procfs
from srvd.linux.processes.prctl import become_subreaper
from srvd.linux.scoreboard import Bell, Board
from tests.support.waiting import wait_for

T = TypeVar("T")

GOOD = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def open_fds() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
    return found


class Stage:
    def __init__(self, folder: Path, slots: int = 256, family_lock: FamilyLock | None = None) -> None:
        self._others = self._children()  # of other tests
        self.before = open_fds()
        become_subreaper()
        self.folder = folder
        self.loop = Loop()
        self.bell = Bell.create()
        self.slots = slots
        self.commons = Commons(self.bell, slots)
        self.listeners = Listeners()
        self.events: list[Event] = []
        self.lines: list[tuple[str, str]] = []
        self.rung = 0
        self.performer = Performer(
            self.loop, self.commons, self.listeners, self.events.append, self._ring, self._line, family_lock
        )
        self._revision = Revision(0)

    def _ring(self) -> None:
        self.rung += 1

    def _line(self, source: object, line: str) -> None:
        self.lines.append((str(source), line))

    @property
    def processes(self) -> Processes:
        return self.performer.processes

    # -- what tests do ----------------------------------------------------------------------------------------

    def write(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(source)

    def start(self, source: str = GOOD, name: str = "app", **settings: Any) -> GenerationId:
        """Start a zygote of an application with this source."""
        self._revision = Revision(self._revision + 1)
        generation = GenerationId("web", int(self._revision))
        module = f"{name}{self._revision}"
        self.write(module, source)
        pool = PoolSettings(name="web", app=f"{module}:app", chdir=str(self.folder))._replace(**settings)
        listeners = {"web": ListenerSettings(name="web", bind=("127.0.0.1:0",))}
        config = Config(DaemonSettings(), listeners, {"web": pool}, {}, "")
        self.listeners.prepare(self._revision, config.listeners)
        self.performer.revisions.settle(self._revision, config)
        self.performer.perform(StartZygote(generation, self._revision))
        return generation

    def load(self, source: str = GOOD, **settings: Any) -> GenerationId:
        """Start a zygote and wait until it has loaded."""
        generation = self.start(source, **settings)
        self.until(lambda: self.of(ZygoteLoaded, generation))
        return generation

    def fork(self, generation: GenerationId, serial: int, *, ready: bool = True) -> WorkerId:
        worker = WorkerId(*generation, serial)
        self.performer.perform(Fork(worker))
        self.until(lambda: self.said(worker, WorkerReport.READY) if ready else self.of(WorkerForked, worker))
        return worker

    def serve(self, worker: WorkerId) -> tuple[str, int]:
        """Let it serve; the address."""
        self.performer.perform(TellWorker(worker, WorkerCommand.SERVE))
        self.until(lambda: self.said(worker, WorkerReport.SERVING))
        address: tuple[str, int] = self.listeners.of(self._revision, ())[0][1].getsockname()
        return address

    def board(self, subject: GenerationId | WorkerId) -> Board:
        generation = subject.generation_id if isinstance(subject, WorkerId) else subject
        return self.commons.of(generation).board

    def kill(self, worker: WorkerId, *, dump: bool = False) -> WorkerGone:
        self.performer.perform(KillWorker(worker, dump))
        return self.until(lambda: self.of(WorkerGone, worker))[0]

    def gone(self, subject: GenerationId | WorkerId) -> Any:
        """How it ended, when it has."""
        wanted: type[Any] = ZygoteGone if isinstance(subject, GenerationId) else WorkerGone
        return self.until(lambda: self.of(wanted, subject))[0]

    def hand_over(self) -> None:
        """Another program goes on with these processes, as after an exec: what was under way in this one is lost."""
        former, kept = self.performer, FdTable()
        processes = former.processes
        carried = processes.save(kept)
        self.commons = Commons(self.bell, self.slots)
        self.loop.close()
        self.loop = Loop()
        self.performer = Performer(
            self.loop, self.commons, self.listeners, self.events.append, self._ring, self._line
        )  # fmt: skip
        for revision, config in former.revisions._configs.items():
            self.performer.revisions.settle(revision, config)
        self.processes.restore(carried, kept)
        left = [one.process for one in processes.workers._entries.values()]
        for process in (*left, *(one.process for one in processes.zygotes._entries.values())):
            if process.link is not None:
                process.link.detach()

    def until(self, claim: Callable[[], T], within: float = 15.0) -> T:
        deadline = time.monotonic() + within
        while not (value := claim()):
            if time.monotonic() > deadline:
                msg = f"still {value!r} after {within} s; events {self.events[-5:]}, lines {self.lines[-20:]}"
                raise AssertionError(msg)
            self.spin(0.002)
        return value

    def spin(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()

    # -- what tests see ---------------------------------------------------------------------------------------

    def of(self, kind: type[T], subject: GenerationId | WorkerId) -> list[T]:
        """The events of one kind about a zygote or a worker."""
        return [event for event in self.events if isinstance(event, kind) and tuple(event)[:1] == (subject,)]

    def said(self, worker: WorkerId, word: WorkerReport) -> list[WorkerSaid]:
        return [event for event in self.of(WorkerSaid, worker) if event.word is word]

    def pid(self, worker: WorkerId) -> int:
        return int(self.of(WorkerForked, worker)[0].pid)

    def zygote_pid(self, generation: GenerationId) -> int:
        """Found by its title; the performer does not tell."""
        (pid,) = (pid for pid, found in self.processes.zygotes.pids().items() if found == generation)
        return pid

    def log_of(self, subject: GenerationId | WorkerId) -> str:
        return "\n".join(line for source, line in self.lines if source == str(subject))

    # -- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        generations = set(self.processes.zygotes.pids().values())
        for worker in list(self.processes.workers.pids().values()):
            self.kill(worker)
        for generation in generations:
            self.performer.perform(StopZygote(generation))
        self.spin(0.05)
        for generation in generations & set(self.processes.zygotes.pids().values()):
            self.performer.perform(KillZygote(generation))
        for generation in generations:
            self.gone(generation)
        self.until(self._childless)
        self.processes.close()
        self.bell.close()
        self.listeners.close()
        self.loop.close()
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # no longer the subreaper: other tests count their own children
        # What another test had open may be closed meanwhile; a listener is closed by a thread, which may take its time.
        wait_for(lambda: not set(open_fds().items()) - set(self.before.items()))

    def _childless(self) -> bool:
        self.processes.reap()
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return ended is None and self._children() <= self._others
        except ChildProcessError:
            return True

    def _children(self) -> set[int]:
        return set(procfs.children(os.getpid()))
