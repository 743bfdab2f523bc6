"""What follows the end of a worker: the hook `on_worker_gone`, in a process that lives for this call only, and the
lines of the access log that the worker has left.

Reaps no worker; `fork_server.py` does. A hook that hangs or fails harms neither the zygote nor a worker: the kernel
ends its process after `LIMIT` seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from select import EPOLLIN, epoll
from typing import NoReturn

from srvd.ids import WorkerId
from srvd.linux import fds
from srvd.linux.processes import process
from srvd.linux.processes.process import Ended
from srvd.log import Log
from srvd.worker.app import hooks
from srvd.worker.observe import access_log
from srvd.worker.observe.access_buffer import AccessBuffer
from srvd.zygote.template import WorkerTemplate

__all__ = ["Departures", "rescue"]

LIMIT = 5
"""Seconds that a call may last."""

_STDERR = 2


class Departures:
    """The processes in which the hook runs now. Owns their pidfds, which are in `poll`."""

    def __init__(self, template: WorkerTemplate, poll: epoll) -> None:
        self._template = template
        self._poll = poll
        self._pidfds: set[int] = set()

    def __contains__(self, fd: int) -> bool:
        return fd in self._pidfds

    def tell(self, serial: int, pid: int, ended: Ended, forget: Callable[[], None]) -> None:
        """Calls the hook, if the module has it. `forget` closes in the child what is the zygote's alone."""
        template = self._template
        if template.preloaded is not None and template.preloaded.hooks.on_worker_gone is None:
            return
        worker = str(WorkerId(template.wanted.pool, template.wanted.generation, serial))
        log = Log(_STDERR)
        try:
            child = os.fork()
        except OSError as exc:
            log.error(f"call on_worker_gone for {worker}: fork: {exc.strerror}; the call is left out")
            return
        if child == 0:
            _call(template, forget, log, worker, pid, str(ended))
        with contextlib.suppress(OSError):  # a lack of descriptors: the process ends unseen
            pidfd = process.open_pidfd(child)
            self._pidfds.add(pidfd)
            self._poll.register(pidfd, EPOLLIN)

    def reap(self, pidfd: int) -> None:
        """Takes notice of the end of a call."""
        self._pidfds.discard(pidfd)
        self._poll.unregister(pidfd)
        ended = Ended()
        with contextlib.suppress(ChildProcessError):  # an application that waits for any child has reaped it
            ended = process.reap(pidfd) or ended
        os.close(pidfd)
        if ended.signal == signal.SIGALRM:
            Log(_STDERR).error(f"the hook on_worker_gone took longer than {LIMIT} s and was ended")

    def forget(self) -> None:
        """In a child: closes the pidfds."""
        fds.close_all(self._pidfds)

    def finish(self) -> None:
        """Waits for the calls under way, each of which ends by itself."""
        with contextlib.suppress(ChildProcessError):
            while self._pidfds:
                os.waitid(os.P_PIDFD, next(iter(self._pidfds)), os.WEXITED | os.WNOWAIT)
                self.reap(next(iter(self._pidfds)))


def rescue(path: str, buffer: AccessBuffer) -> None:
    """Writes the lines of the access log at `path` that a killed worker has left in its buffer, and closes that."""
    lost, problem = access_log.rescue(path, buffer)
    buffer.close()
    if lost:
        Log(_STDERR).error(f"write the access log {path}: {problem}; a worker that died has left {lost} lines")


def _call(
    template: WorkerTemplate, forget: Callable[[], None], log: Log, worker: str, pid: int, reason: str
) -> NoReturn:
    """In the child: calls the hook and ends."""
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.alarm(LIMIT)
        forget()
        os.close(template.hold)
        ready = template.preloaded
        found = _load(template.pool.hooks) if ready is None else ready.hooks
        hooks.call(found.on_worker_gone, "on_worker_gone", log, worker, pid, reason)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as exc:  # the process ends here
        log.error(f"call on_worker_gone for {worker}: {exc}")
    finally:
        os._exit(0)


def _load(module: str) -> hooks.Hooks:
    """Loads the hooks of a pool that is not preloaded. Raises `LoadFailed`."""
    if sys.flags.no_site:
        import site

        site.main()
    return hooks.load(module).hooks
