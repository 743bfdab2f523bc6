"""Keeps clients waiting in the listeners' queues from the save of a file until the new code serves them.

The watcher says when (`hold`, `go`). A request that has begun is finished by the code that it began with.
"""

from __future__ import annotations

from select import EPOLLIN
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srvd.worker.develop.reports import Session
    from srvd.worker.loop import Loop
    from srvd.worker.supervision.commands import Commands

__all__ = ["attach"]


def attach(session: Session, loop: Loop, commands: Commands) -> None:
    """Obeys the watcher from now on; when it has gone, the worker accepts as without one."""

    def look(mask: int, now: float) -> None:
        orders = session.orders()
        for order in ("go",) if orders is None else orders:
            commands.hold(now, on=order == "hold")
        if orders is None:
            loop.remove(session.sock.fileno())
            session.sock.close()

    loop.add(session.sock.fileno(), EPOLLIN, look)
    look(0, 0.0)  # orders that came while the application started
