"""Entry of an upgrade: the first code of this program that a running daemon of another version calls, after execve(2).

The name of this file, `take_over` and the keys of its plan never change, because a daemon of any earlier version may
call them (`daemon/upgrade/replace.py:BOOT`). The work behind them, in `daemon/entry/resume.py`, may change.
"""

from __future__ import annotations

from typing import Any, NoReturn

from srvd.daemon.entry import resume

__all__ = ["take_over"]


def take_over(plan: dict[str, Any]) -> NoReturn:
    """Continue as the daemon that the plan describes. Never returns.

    plan: the content of the memfd whose number is `sys.argv[1]`:
        state: int, number of the memfd with the daemon's state (`daemon/state/handover.py`).
        fds: dict[str, int], inherited descriptors by name (`daemon/fd_table.py`).
        folder: str, put into `sys.path` to import this program.
        boot: str, the text that called; the former program is called by the same text.
        former: dict with `interpreter` and `folder` of the former program; None if this is the former program.
        limit: float, seconds until SIGALRM ends the attempt; the timer is stopped before the plan is emptied.
        failure, proof: str, error and traceback of the program that failed before; "" if none did.

    Raises any exception while the plan still has its keys: the caller then runs the former program. Empties the plan
    as soon as the former program cannot continue any more.
    """
    resume.main(plan)
