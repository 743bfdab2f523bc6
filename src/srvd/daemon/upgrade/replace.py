"""Upgrade in place, the old program's part: runs the self-check of the new program, then replaces itself by exec.

Chooses nothing: the core orders both. The new program's part is `entry/resume.py`.

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
from typing import Any

from srvd import __version__
from srvd.core.events import Event, ProgramChecked, ProgramReplaced
from srvd.core.model import ErrorCode, Fault, OpId
from srvd.core.supervisor import Supervisor
from srvd.daemon.control.server import ControlServer
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop, Timer
from srvd.daemon.signals import HANDLED, hold
from srvd.daemon.state import handover
from srvd.daemon.state.model import Handover
from srvd.daemon.systemd_notifier import SystemdNotifier
from srvd.daemon.upgrade.program import Program
from srvd.daemon.upgrade.source_archive import SourceArchive
from srvd.errors import CODES
from srvd.linux import fds
from srvd.linux.processes import process
from srvd.record import Record

__all__ = ["BOOT", "Upgrade"]

CHECK_SECONDS = 60.0
"""Limit of the self-check in seconds. The self-check imports some hundred modules and reads the configuration."""

TAKEOVER_SECONDS = 30
"""Limit in seconds for the new program to become the daemon: to import its modules and make some hundred objects."""

_MOST = 1 << 20
"""Bytes kept of each output of the self-check: the last ones."""

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

_NOT_FOR_CHECKS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class Check(Record):
    """A running self-check."""

    op: OpId
    pid: int
    pidfd: int
    out: int
    err: int
    said: dict[int, bytes]
    timer: Timer


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
        self._next: tuple[str, str] = ("", "")  # interpreter and folder of the program that has checked itself
        self._check: Check | None = None

    # -- the question ---------------------------------------------------------------------------------------------

    def check(self, op: OpId) -> None:
        """Start the self-check of the program on disk. Emits `ProgramChecked` when it is over."""
        self._drop_check()
        opened: list[int] = []
        try:
            state = fds.memfd("srvd-state", handover.pack(self._collect(FdTable())))
            opened.append(state)
            opened += os.pipe()
            opened += os.pipe()
            _, out, out_end, err, err_end = opened
            pid = _spawn(self._program.command, state, out_end, err_end)
            pidfd = process.open_pidfd(pid)
        except OSError as exc:
            fds.close_all(opened)
            text = f"run {' '.join(self._program.command)} --self-check: {exc.strerror}; nothing was changed"
            self._checked(op, "", Fault(ErrorCode.LOAD_FAILED, text, step="check"))
            return
        fds.close_all([state, out_end, err_end])
        timer = self._loop.call_later(CHECK_SECONDS, self._too_late)
        check = self._check = Check(op, pid, pidfd, out, err, {out: b"", err: b""}, timer)
        for fd in (out, err):
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._hear, check, fd)
        self._loop.add_reader(pidfd, self._over, check)

    def _hear(self, check: Check, fd: int) -> bool:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        check.said[fd] = (check.said[fd] + data)[-_MOST:]
        if not data:
            self._loop.remove_reader(fd)
        return bool(data)

    def _over(self, check: Check) -> None:
        for fd in (check.out, check.err):
            for _ in range(_MOST >> 16):
                if not self._hear(check, fd):
                    break
        self._drop_check()
        answer = _answer(check.said[check.out])
        error = answer.get("error")
        new = str(answer.get("version", ""))
        if not error and isinstance(answer.get("python"), str) and isinstance(answer.get("folder"), str):
            self._next = answer["python"], answer["folder"]
            self._checked(check.op, new, None)
            return
        proof = check.said[check.err].decode("utf-8", "replace")
        last = proof.strip().rpartition("\n")[2]  # of a traceback: the exception
        text = f"{' '.join(self._program.command)} --self-check gave no answer" + (f": {last[:200]}" if last else "")
        fault = Fault(ErrorCode.LOAD_FAILED, f"{text}; nothing was changed", step="check")
        if isinstance(error, dict):
            detail = error.get("detail")
            proof = str(detail.get("traceback", "")) if isinstance(detail, dict) else ""
            text = f"srvd {new} cannot take over: {error['message']}"
            text += "" if "nothing was changed" in text else "; nothing was changed"
            known = error["code"] in CODES  # a later version may have codes that this one does not know
            code = ErrorCode(error["code"]) if known else ErrorCode.INTERNAL
            fault = Fault(code, text, str(error["hint"]), "check")
        self._checked(check.op, new, fault._replace(traceback=proof))

    def _checked(self, op: OpId, new: str, fault: Fault | None) -> None:
        self._emit(ProgramChecked(op, __version__, new, fault))

    def _too_late(self) -> None:
        check = self._check
        if check is not None:
            self._drop_check()
            text = f"the self-check did not end within {CHECK_SECONDS:g} s; nothing was changed"
            proof = check.said[check.err].decode("utf-8", "replace")
            self._checked(check.op, "", Fault(ErrorCode.LOAD_FAILED, text, step="check", traceback=proof))

    def _drop_check(self) -> None:
        """End the self-check and close its descriptors. A self-check that is killed here is reaped as a stranger."""
        check, self._check = self._check, None
        if check is None:
            return
        check.timer.cancel()
        for fd in (check.out, check.err, check.pidfd):
            self._loop.remove_reader(fd)
        process.send_group_signal(check.pidfd, check.pid, signal.SIGKILL)
        process.send_signal(check.pidfd, signal.SIGKILL)
        fds.close_all([check.out, check.err, check.pidfd])

    def close(self) -> None:
        """End the self-check, because the daemon ends."""
        self._drop_check()

    # -- the step -------------------------------------------------------------------------------------------------

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
        return found is not None and not found.state.ended and self._core.house.stop is None

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
            interpreter = self._next[0]
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
        plan = {"state": state, "fds": table.table, "folder": self._next[1], "boot": BOOT, "former": former,
                "limit": limit, "failure": "", "proof": ""}  # fmt: skip
        return json.dumps(plan).encode()


def _spawn(command: tuple[str, ...], state: int, out: int, err: int) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_CHECKS}
    return os.posix_spawnp(
        command[0],
        [*command, "--self-check"],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, state, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ],
        setsid=True,  # its group can be killed as a whole
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD],
    )


def _answer(said: bytes) -> dict[str, Any]:
    """Return the last line, decoded from JSON; {} if it is no JSON object because the program failed before it."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
