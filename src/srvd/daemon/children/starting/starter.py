"""Starts zygotes: in their folder, with the keys of their listeners and what their generation shares.

Follows no process: `zygotes.py` does. A start that fails is told as a fault, with a hint.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from srvd.config.settings import PoolSettings
from srvd.core.model import Fault
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.process import Process
from srvd.daemon.children.starting.launch import interpreter
from srvd.daemon.children.starting.load_faults import load_fault
from srvd.daemon.children.starting.spawn import Shared, keyless, start_zygote
from srvd.daemon.children.zygote import ZygoteSpec
from srvd.daemon.family.lock import FamilyLock
from srvd.errors import LoadFailed
from srvd.ids import GenerationId
from srvd.linux.interpreter import prepare
from srvd.linux.scoreboard import lanes_of

__all__ = ["ZygoteStarter"]


class ZygoteStarter:
    def __init__(
        self, commons: Commons, line: Callable[[GenerationId, str], None], family_lock: FamilyLock | None
    ) -> None:
        """line: called with each line that a zygote writes to stderr."""
        self._commons = commons
        self._line = line
        self._family_lock = family_lock

    def start(self, generation: GenerationId, spec: ZygoteSpec) -> Process | Fault:
        """Start the process of a zygote, which has been told what to load. Returns the fault if it could not."""
        try:
            return self._start(generation, spec)
        except LoadFailed as failed:
            return load_fault(generation, failed.message, failed.hint)

    def prepare_next(self, pool: PoolSettings) -> None:
        """Start an interpreter ahead for the next reload of a pool under development: it saves a tenth of a second."""
        if pool.reload != "off":
            prepare()

    def _start(self, generation: GenerationId, spec: ZygoteSpec) -> Process:
        if names := keyless(spec.listeners, spec.fronts):
            reason = (
                f"start {generation}: the keys of {', '.join(names)} went with the former daemon; nothing was loaded"
            )
            raise LoadFailed(reason, hint="`srvctl reload` reads them")
        if spec.folder and not spec.pool.chdir:
            _enter(spec.folder)
        try:
            common = self._commons.open(generation, lanes_of(spec.pool.threads))
            shared = Shared(common.board.fd, self._commons.bell, common.hold)
            return start_zygote(generation, spec, shared, partial(self._line, generation), self._family_lock)
        except OSError as exc:
            reason = f"start {interpreter(spec.pool)} for {generation}: {exc.strerror}; nothing was loaded"
            hint = "correct `python`" if isinstance(exc, (FileNotFoundError, PermissionError)) else ""
            raise LoadFailed(reason, hint=_missing() or hint) from exc


def _enter(folder: str) -> None:
    """Enter the folder: the zygote inherits it, even if the pool's user may not enter it. Raises `LoadFailed`."""
    try:
        os.chdir(folder)
    except OSError as exc:
        reason = f"enter {folder}, where srvd was started: {exc.strerror}; nothing was loaded"
        raise LoadFailed(reason, hint="make the folder again, or set `chdir` to where the code is") from exc


def _missing() -> str:
    """The hint if a part of the system is missing that a start needs; "" if all are there."""
    if not os.path.exists("/proc/self"):
        return "srvd needs /proc: mount it (mount -t proc proc /proc)"
    return "" if os.path.exists(os.devnull) else f"{os.devnull} is not there: make it (mknod {os.devnull} c 1 3)"
