"""Upgrade in place, the old program's part: after the self-check of the new program, replaces itself by exec.

Chooses nothing: the core orders both. `self_check.py` runs the check; the new program's part is `entry/resume.py`.

Nothing may be lost. Descriptors, children and the lock stay with the process over execve(2). Signals are blocked
first: later ones stay pending for the new program; earlier ones are handled here, in a few more turns of the loop, and
after a stop among them the exec is not done.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Callable

from srvd.core.events import Event, ProgramReplaced
from srvd.core.model import ErrorCode, Fault, OpId
from srvd.core.supervisor import Supervisor
from srvd.daemon.control.server import ControlServer
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop
from srvd.daemon.signals import HANDLED, hold
from srvd.daemon.state import handover
from srvd.daemon.state.model import Handover
from srvd.daemon.systemd_notifier import SystemdNotifier
from srvd.daemon.upgrade.program import Program
from srvd.daemon.upgrade.self_check import SelfCheck
from srvd.daemon.upgrade.source_archive import SourceArchive
from srvd.linux import fds

__all__ = ["BOOT", "Upgrade"]

TAKEOVER_SECONDS = 30
"""Limit in seconds for the new program to become the daemon: to import its modules and make some hundred objects."""

_ROUNDS = 4
"""Turns of the loop from the arrival of a signal to its order, and one more."""

# The code that the new interpreter runs. If the new program cannot even be imported, this code runs the former one,
# with the standard library alone. The new program empties `plan` when it has taken over for good. The alarm raises a
# BaseException, again each second, so a new program that suppresses exceptions cannot hang. If the former interpreter
# was removed with its virtual environment, the new interpreter runs the former program. `_upgrade_entry.py` states what
# this code may rely on in a program of another version.
BOOT = """\
import json, os, signal, sys, traceback
class TookTooLong(BaseException): pass
note = int(sys.argv[1])
plan = json.loads(os.pread(note, os.fstat(note).st_size, 0))
def late(number, frame):
    raise TookTooLong(f"it had not taken over within {plan['limit']:g} s")
try:
    if plan["former"]:
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, plan["limit"], 1.0)
    if plan["folder"] not in sys.path:
        sys.path.insert(0, plan["folder"])
    from srvd._upgrade_entry import take_over
    take_over(plan)
except BaseException as exc:
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    if not plan or not plan["former"]:
        raise
    former = plan["former"]
    plan.update(failure=f"{type(exc).__name__}: {exc}", proof=traceback.format_exc(), folder=former["folder"])
    plan.update(former=None)
    text = json.dumps(plan).encode()
    os.ftruncate(note, 0)
    os.pwrite(note, text, 0)
    for fd in [note, plan["state"], *plan["fds"].values()]:
        os.set_inheritable(fd, True)
    interpreter = former["interpreter"] if os.access(former["interpreter"], os.X_OK) else sys.executable
    os.execve(interpreter, [interpreter, "-P", "-c", plan["boot"], str(note)], os.environ)
"""


class Upgrade:
    """The upgrade in place of one daemon. `collect`: returns the daemon's state, gives its descriptors to the table."""

    def __init__(
        self,
        loop: Loop,
        core: Supervisor,
        emit: Callable[[Event], None],
        collect: Callable[[FdTable], Handover],
        program: Program,
        archive: SourceArchive,
        control: ControlServer,
        notifier: SystemdNotifier,
    ) -> None:
        self._loop = loop
        self._core = core
        self._emit = emit
        self._collect = collect
        self._program = program
        self._archive = archive
        self._control = control
        self._notifier = notifier
        self._self_check = SelfCheck(loop, program.command, emit)

    def check(self, op: OpId) -> None:
        """Ask the program on disk whether it can take over this daemon. Emits `ProgramChecked`, perhaps later."""
        self._self_check.begin(op, handover.pack(self._collect(FdTable())))

    def close(self) -> None:
        """End the self-check, because the daemon ends."""
        self._self_check.end()

    def replace(self, op: OpId) -> None:
        """Replace this program by the one that passed its self-check, unless the operation ends before.

        The new program emits `ProgramReplaced`; this one does when execve(2) fails."""
        hold()
        self._loop.call_later(0, self._settle, op, _ROUNDS)

    def _settle(self, op: OpId, rounds: int) -> None:
        if not self._is_under_way(op):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        elif rounds:
            self._loop.call_later(0, self._settle, op, rounds - 1)
        else:
            self._emit(ProgramReplaced(op, self._exec()))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def _is_under_way(self, op: OpId) -> bool:
        found = self._core.operation(op)
        return found is not None and not found.state.ended and self._core.state.stop is None

    def _exec(self) -> Fault:
        """Run the new program in this process. Returns only on failure, with the reason."""
        table = FdTable()
        opened: list[int] = []
        try:
            opened.append(fds.memfd("srvd-state", handover.pack(self._collect(table))))
            opened.append(fds.memfd("srvd-takeover", self._plan(opened[0], table)))
            self._control.dismiss("upgrade", "the daemon's program is replaced; connect again, it is the same daemon")
            inherited = [*opened, *table.table.values()]
            for fd in inherited:
                os.set_inheritable(fd, True)
            interpreter = self._self_check.passed.interpreter
            os.execve(interpreter, [interpreter, "-P", "-c", BOOT, str(opened[1])], os.environ)  # noqa: S606 - no shell
        except Exception as exc:  # of any kind: the operation fails, and the daemon goes on
            for fd in table.table.values():
                os.set_inheritable(fd, False)
            fds.close_all(opened)
            text = f"run the new program: {exc}; this one goes on"
            return Fault(ErrorCode.LOAD_FAILED, text, step="replace", traceback=traceback.format_exc())

    def _plan(self, state: int, table: FdTable) -> bytes:
        """Return the plan that `BOOT` reads, as JSON. The plan contains this program's `BOOT`, for the way back."""
        former = {"interpreter": self._program.interpreter, "folder": self._archive.path or self._program.folder}
        limit = min(TAKEOVER_SECONDS, self._notifier.beat() or TAKEOVER_SECONDS)
        plan = {"state": state, "fds": table.table, "folder": self._self_check.passed.folder, "boot": BOOT,
                "former": former, "limit": limit, "failure": "", "proof": ""}  # fmt: skip
        return json.dumps(plan).encode()
