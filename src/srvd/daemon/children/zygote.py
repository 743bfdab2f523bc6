"""One zygote in the daemon's table: what it is started with, running, and handed over to the next program.

Sends no order and reads no message; `zygotes.py` does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

from srvd.config.settings import ListenerSettings, PoolSettings
from srvd.daemon.children.output import Output, Read
from srvd.daemon.children.process import Process
from srvd.daemon.children.table import Entry
from srvd.daemon.fd_table import FdTable
from srvd.ids import GenerationId
from srvd.record import Record
from srvd.tls.material import Material

__all__ = ["Fronts", "Named", "Zygote", "ZygoteSpec", "ZygoteState"]

Named = Sequence[tuple[str, socket.socket]]


class Fronts(Record):
    """Settings and certificates of listeners, by name: TLS, PROXY protocol, trusted proxies."""

    settings: Mapping[str, ListenerSettings]
    tls: Mapping[str, Material]


class ZygoteSpec(Record):
    """What a zygote is started with.

    folder: where a pool without `chdir` is loaded. It is entered by its name each time, so a link may have moved.
    """

    pool: PoolSettings
    listeners: Named
    fronts: Fronts
    folder: str


class Zygote(Entry[GenerationId]):
    """One zygote.

    told: it has said how loading went, or was told to leave. forks: it has loaded. learns: it imports more modules.
    dismissed: it was told to leave, or will be when it calls.
    """

    __slots__ = ("dismissed", "forks", "learns", "pool", "told")

    def __init__(self, generation: GenerationId, pool: PoolSettings, started: Process) -> None:
        super().__init__(generation, started)
        self.pool = pool
        self.told = False
        self.forks = False
        self.learns = False
        self.dismissed = False

    @property
    def is_away(self) -> bool:
        """Whether the zygote was adopted and has not called yet; one whose link has ended is killed soon."""
        return super().is_away and self.timer is None

    def save(self, fd_table: FdTable) -> ZygoteState:
        """The state for the next program; the descriptors go to `fd_table`."""
        read = self.process.save(f"zygote {self.id}", fd_table)
        return ZygoteState(
            self.id, self.process.pid, self.told, self.forks, self.timer is not None, read, self.dismissed, self.killed
        )  # fmt: skip

    @classmethod
    def restore(
        cls, state: ZygoteState, pool: PoolSettings, fd_table: FdTable, output: Callable[[int], Output]
    ) -> Zygote:
        """The zygote that `save` described. Raises `Unsupported`, `OSError`.

        output: makes the reader of its stderr.
        """
        zygote = cls(state.id, pool, Process.restore(f"zygote {state.id}", state.pid, fd_table, output))
        zygote.told, zygote.forks = state.told, state.forks
        zygote.dismissed, zygote.killed = state.dismissed, state.killed
        return zygote


class ZygoteState(Record):
    """One zygote as it is handed over. `doomed`: it is killed soon."""

    id: GenerationId
    pid: int
    told: bool
    forks: bool
    doomed: bool
    read: Read
    dismissed: bool = False
    killed: bool = False
