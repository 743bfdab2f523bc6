"""Turns the signals of init scripts into orders.

Decides nothing: an order by signal can be refused, and is logged, as any other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from srvd.core.model import Actor, Kind, Order
from srvd.core.state.model import SupervisorState
from srvd.daemon.loop import Loop
from srvd.errors import SrvdError
from srvd.log import Log

__all__ = ["HANDLED", "Signals", "hold"]

HANDLED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1,
    signal.SIGUSR2, signal.SIGRTMIN,
)  # fmt: skip

_ORDERS: Mapping[signal.Signals, Order] = {
    signal.SIGTERM: Order(Kind.STOP),
    signal.SIGINT: Order(Kind.STOP),
    signal.SIGQUIT: Order(Kind.STOP, now=True),
    signal.SIGHUP: Order(Kind.RELOAD),
    signal.SIGUSR1: Order(Kind.REOPEN),
    signal.SIGUSR2: Order(Kind.UPGRADE),
}


def hold() -> None:
    """Block the signals until a loop handles them: by default they would end the daemon alone, without its workers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)


class Signals:
    """Submits orders for signals. `look`: called before an order, because the control socket may be gone."""

    def __init__(
        self, state: SupervisorState, submit: Callable[[Order, Actor], object], look: Callable[[], None], log: Log
    ) -> None:
        self._state = state
        self._submit = submit
        self._look = look
        self._log = log

    def attach(self, loop: Loop, reap: Callable[[], object], before_restart: Callable[[], None]) -> None:
        """Handle signals from now on, beginning with blocked ones that are pending. `reap`: called when a child has
        ended; `before_restart`: called before a stop after which the next daemon starts at once."""
        for number, order in _ORDERS.items():
            loop.on_signal(number, self._order, number, order)
        loop.on_signal(signal.SIGTTIN, self._scale, signal.SIGTTIN, +1)
        loop.on_signal(signal.SIGTTOU, self._scale, signal.SIGTTOU, -1)
        loop.on_signal(signal.SIGRTMIN, self._restart, before_restart)
        loop.on_signal(signal.SIGCHLD, reap)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        reap()  # children whose SIGCHLD came before the handler was set

    def _order(self, number: signal.Signals, order: Order) -> None:
        if order.kind is not Kind.STOP:
            self._look()
        if number is signal.SIGINT and self._state.stop is None:
            self._log.info("stopping when the requests in progress are answered; ^C once more cuts them off")
        try:
            self._submit(order, Actor(os.getuid(), 0, f"signal {number.name}"))
        except SrvdError as exc:
            self._log.error(f"{number.name}: {exc.message}")

    def _scale(self, number: signal.Signals, delta: int) -> None:
        for name in list(self._state.pools):
            self._order(number, Order(Kind.SCALE, name, delta, relative=True))

    def _restart(self, before_restart: Callable[[], None]) -> None:
        before_restart()
        self._order(signal.Signals.SIGRTMIN, Order(Kind.STOP))
