"""The innocent ones beside an attack: clients of another pool, or of the same, and an admin who gives orders."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from srvd.client.connection import Client
from srvd.errors import SrvdError
from tests.support.daemon import BOOT, Srvd
from tests.support.load import load_on

__all__ = ["undisturbed"]

_ORDERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ping", {}), ("status", {}), ("workers", {}), ("why", {}), ("op.list", {}), ("config", {}),
)  # fmt: skip

_SLOWEST = 20.0
"""Seconds within which each order is answered, on a busy machine."""


class _Admin(threading.Thread):
    """Gives order after order, each on a connection of its own."""

    def __init__(self, srvd: Srvd) -> None:
        super().__init__(name="admin", daemon=True)
        self.srvd = srvd
        self.over = threading.Event()
        self.answered = 0
        self.slowest = 0.0
        self.problem = ""

    def run(self) -> None:
        while not self.over.is_set() and not self.problem:
            for method, args in _ORDERS:
                began = time.monotonic()
                try:
                    with Client.connect(str(self.srvd.socket), timeout=BOOT) as client:
                        client.call(method, args)
                except SrvdError as exc:
                    self.problem = f"{method}: {exc}"
                    return
                self.answered += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
            self.over.wait(0.05)


@contextlib.contextmanager
def undisturbed(srvd: Srvd, *listeners: str) -> Iterator[None]:
    """Claims of what happens meanwhile: clients of these listeners (of `other`, if none is named) lose no request,
    workers of the pool `other` stay, the daemon stays, each order is answered, nothing is a bug in srvd.
    """
    before = {worker["pid"] for worker in srvd.serving("other")}
    pid, logged = srvd.status()["daemon"]["pid"], len(srvd.logged())
    admin = _Admin(srvd)
    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(load_on(srvd.address(name), 2)) for name in listeners or ("other",)]
        admin.start()
        try:
            yield
        finally:
            admin.over.set()
            admin.join(2 * BOOT)
        assert srvd.call("scale", pool="other", size=2)["operation"]["state"] == "done"
    assert [load.failed for load in loads] == [[] for _ in loads]
    assert admin.problem == ""
    assert admin.answered >= len(_ORDERS)
    assert admin.slowest < _SLOWEST
    assert {worker["pid"] for worker in srvd.serving("other")} == before
    assert srvd.status()["daemon"]["pid"] == pid
    assert "a bug in srvd" not in srvd.logged()[logged:]
