"""A fault in a real daemon under load: what it cost, how long the repair took, and what srvctl says of it.

Chooses no fault: the tests do. The figures are printed, for docs/benchmarks.md; `pytest -rP` shows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.daemon import BOOT, Srvd
from tests.load import Failure, Load
from tests.support import wait_for

CLIENTS = 4


class Fault:
    """The time since it struck, and the requests that were lost since then."""

    def __init__(self, srvd: Srvd, load: Load, name: str) -> None:
        self.srvd = srvd
        self.load = load
        self.name = name
        self.struck = time.monotonic()

    def strikes(self) -> None:
        """Now, and not when the load began."""
        self.struck = time.monotonic()

    def repaired(self, claim: Callable[[], object], within: float = BOOT) -> float:
        """Seconds until the claim is true; then as many requests again have to be answered as there are clients."""
        wait_for(claim, within)
        took = time.monotonic() - self.struck
        print(f"{self.name}: repaired after {1e3 * took:.0f} ms")  # noqa: T201 - a figure to read
        self.load.more(2 * CLIENTS)
        return took

    def replaced(self, victim: str, count: int, within: float = BOOT) -> float:
        """Seconds until `count` workers serve, and the victim is not among them."""
        return self.repaired(lambda: len(names := self.srvd.names()) == count and victim not in names, within)

    def lost(self, *spared: str) -> list[Failure]:
        """Requests that failed, but for those inside the processes that were killed: `spared`.

        A connection that one of these had just taken has not been answered yet, and so has no holder; each client
        has one connection, and so loses one request to one death at most.
        """
        inside = [failure for failure in self.load.failed if spared and failure.holder in {*spared, ""}]
        assert len(inside) <= len(spared) * CLIENTS, f"more were lost than there were connections: {inside}"
        return [failure for failure in self.load.failed if failure not in inside]

    def why(self, *words: str) -> str:
        """What srvctl says of the deaths."""
        done = self.srvd.ctl("why", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def under_load(srvd: Srvd, name: str, path: str = "/") -> Iterator[Fault]:
    """Clients ask all the time while the block strikes, and a moment longer."""
    with srvd.under_load(CLIENTS, path) as load:
        fault = Fault(srvd, load, name)
        yield fault
