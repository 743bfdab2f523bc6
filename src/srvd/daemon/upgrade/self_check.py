"""Self-check of an upgrade: runs the installed program on this daemon's state, and hears whether it can take over.

Replaces nothing (`replace.py` does). One check runs at a time, in a session of its own, and ends within a limit of
time. Its process answers from `entry/self_check.py`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from srvd import __version__
from srvd.core.events import Event, ProgramChecked
from srvd.core.model import ErrorCode, Fault, OpId
from srvd.daemon.loop import Loop, Timer
from srvd.errors import CODES
from srvd.linux import fds
from srvd.linux.processes import process
from srvd.record import Record

__all__ = ["SelfCheck"]

CHECK_SECONDS = 60.0
"""Limit of the self-check in seconds. The self-check imports some hundred modules and reads the configuration."""

_MOST = 1 << 20
"""Bytes kept of each output of the self-check: the last ones."""

_NOT_FOR_CHECKS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


class Checked(Record):
    """The program that passed its self-check: its interpreter, and the folder from which it imports srvd."""

    interpreter: str = ""
    folder: str = ""


class Check(Record):
    """A running self-check."""

    op: OpId
    pid: int
    pidfd: int
    out: int
    err: int
    said: dict[int, bytes]
    timer: Timer


class SelfCheck:
    """The self-checks of one daemon. `passed`: the program that passed the last one."""

    def __init__(self, loop: Loop, command: tuple[str, ...], emit: Callable[[Event], None]) -> None:
        self._loop = loop
        self._command = command
        self._emit = emit
        self._check: Check | None = None
        self.passed = Checked()

    def begin(self, op: OpId, state: bytes) -> None:
        """Start the self-check of the program on disk. Emits `ProgramChecked` when it is over.

        state: the daemon's, made by `handover.pack`.
        """
        self.end()
        opened: list[int] = []
        try:
            opened.append(fds.memfd("srvd-state", state))
            opened += os.pipe()
            opened += os.pipe()
            given, out, out_end, err, err_end = opened
            pid = _spawn(self._command, given, out_end, err_end)
            pidfd = process.open_pidfd(pid)
        except OSError as exc:
            fds.close_all(opened)
            text = f"run {' '.join(self._command)} --self-check: {exc.strerror}; nothing was changed"
            self._answer(op, "", Fault(ErrorCode.LOAD_FAILED, text, step="check"))
            return
        fds.close_all([given, out_end, err_end])
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
        self.end()
        answer = _last_line(check.said[check.out])
        error = answer.get("error")
        new = str(answer.get("version", ""))
        if not error and isinstance(answer.get("python"), str) and isinstance(answer.get("folder"), str):
            self.passed = Checked(answer["python"], answer["folder"])
            self._answer(check.op, new, None)
            return
        proof = check.said[check.err].decode("utf-8", "replace")
        last = proof.strip().rpartition("\n")[2]  # of a traceback: the exception
        text = f"{' '.join(self._command)} --self-check gave no answer" + (f": {last[:200]}" if last else "")
        fault = Fault(ErrorCode.LOAD_FAILED, f"{text}; nothing was changed", step="check")
        if isinstance(error, dict):
            detail = error.get("detail")
            proof = str(detail.get("traceback", "")) if isinstance(detail, dict) else ""
            text = f"srvd {new} cannot take over: {error['message']}"
            text += "" if "nothing was changed" in text else "; nothing was changed"
            known = error["code"] in CODES  # a later version may have codes that this one does not know
            code = ErrorCode(error["code"]) if known else ErrorCode.INTERNAL
            fault = Fault(code, text, str(error["hint"]), "check")
        self._answer(check.op, new, fault._replace(traceback=proof))

    def _answer(self, op: OpId, new: str, fault: Fault | None) -> None:
        self._emit(ProgramChecked(op, __version__, new, fault))

    def _too_late(self) -> None:
        check = self._check
        if check is not None:
            self.end()
            text = f"the self-check did not end within {CHECK_SECONDS:g} s; nothing was changed"
            proof = check.said[check.err].decode("utf-8", "replace")
            self._answer(check.op, "", Fault(ErrorCode.LOAD_FAILED, text, step="check", traceback=proof))

    def end(self) -> None:
        """Kill the self-check that runs, if one does, and close its descriptors. It is reaped as a stranger."""
        check, self._check = self._check, None
        if check is None:
            return
        check.timer.cancel()
        for fd in (check.out, check.err, check.pidfd):
            self._loop.remove_reader(fd)
        process.send_group_signal(check.pidfd, check.pid, signal.SIGKILL)
        process.send_signal(check.pidfd, signal.SIGKILL)
        fds.close_all([check.out, check.err, check.pidfd])


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


def _last_line(said: bytes) -> dict[str, Any]:
    """Return the last line, decoded from JSON; {} if it is no JSON object because the program failed before it."""
    lines = said.decode("utf-8", "replace").strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
