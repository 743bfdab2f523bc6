"""Upgrade in place, the new program's part: makes the daemon from its state and its descriptors.

Touches nothing outside the process until the daemon is complete, so that the former program can still run in its place:
`upgrade/replace.py:BOOT` does that when `main` raises before it has emptied the plan. If the former program fails as
well, the daemon ends, and its workers wait for the next start.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import Any, NoReturn

from srvd import __version__
from srvd.core.events import ProgramReplaced
from srvd.core.model import ErrorCode, Fault, Kind, OpState
from srvd.daemon.entry.rebuild import rebuild
from srvd.daemon.fd_table import FdTable
from srvd.daemon.main import Daemon
from srvd.daemon.signals import hold
from srvd.daemon.state import handover
from srvd.errors import EXIT
from srvd.linux.processes.prctl import become_subreaper
from srvd.linux.processes.proctitle import set_title

__all__ = ["main"]


def main(plan: dict[str, Any]) -> NoReturn:
    """Run as the daemon whose state is in `plan`; exits the process. Raises exceptions only before any effect."""
    faulthandler.enable(2)  # as in start.py
    note = int(sys.argv[1])
    state: int = plan["state"]
    found = handover.read(os.pread(state, os.fstat(state).st_size, 0))
    daemon = rebuild(found, FdTable(dict(plan["fds"])))
    _take_over(daemon)
    fault = _fault(plan) if plan["failure"] else None
    signal.setitimer(signal.ITIMER_REAL, 0.0)  # this alarm brings the former program back if the new one hangs
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # From here on there is no way back.
    plan.clear()
    os.close(state)
    os.close(note)
    try:
        code = _go_on(daemon, found.shell.version, fault)
    except Exception:  # the process ends here
        sys.excepthook(*sys.exc_info())
        code = EXIT.BUG
    sys.exit(code)


def _take_over(daemon: Daemon) -> None:
    """Do all of the takeover that can be undone: it has no effect outside of this process."""
    become_subreaper()
    hold()
    set_title(f"srvd: daemon {daemon.base.settings.name}")
    daemon.attach()


def _go_on(daemon: Daemon, former: str, fault: Fault | None) -> int:
    """Run as the daemon. Returns the exit code.

    former: version of the program before the upgrade.
    fault: why the new program failed, if this is the former one again.
    """
    base = daemon.base
    base.parts.log.info(f"srvd {__version__} goes on as the daemon that srvd {former} was, pid {os.getpid()}")
    base.in_order = False  # until the daemon runs
    try:
        daemon.dispatcher.begin()
        for op in base.parts.core.state.open_operations:
            if op.order.kind is Kind.UPGRADE and op.state is OpState.COMMITTING:
                base.queue.put(ProgramReplaced(op.id, fault))
        daemon.renewal.look_over()
        daemon.handle_signals()
        return daemon.turn()
    finally:
        base.close()


def _fault(plan: dict[str, Any]) -> Fault:
    text = f"the new program could not take over: {plan['failure']}; srvd {__version__} goes on"
    return Fault(ErrorCode.ROLLED_BACK, text, "srvd --self-check", "replace", traceback=str(plan["proof"]))
