"""Makes a fork of the zygote a worker: own session, stderr, file for stacks, title. Then the worker serves.

Runs once in a process and never returns.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from srvd.ids import WorkerId
from srvd.linux.processes import deadman, dispositions, limits, process, stacks
from srvd.linux.processes.proctitle import set_title
from srvd.wire import links
from srvd.worker import main
from srvd.worker.app import loader
from srvd.worker.boot import Boot

if TYPE_CHECKING:
    from srvd.worker.observe.access_buffer import AccessBuffer
    from srvd.zygote.template import WorkerTemplate

__all__ = ["PASSED", "STACKS", "become"]

PASSED = 5
"""Descriptors that come with the order to fork."""

STACKS = 2
"""Where the file for a worker's stacks is, among the descriptors that come with the order."""

_BUG = 70


def become(template: WorkerTemplate, order: links.Fork, buffer: AccessBuffer | None, passed: list[int]) -> NoReturn:
    """Turn this new child into the worker that was ordered, serve, and exit with the result of serving.

    buffer: of the lines of the worker's access log, if the pool has one.
    passed: the descriptors that came with the order, `PASSED` of them.
    """
    link, stderr, trace, stderr_read, end = passed
    code = _BUG
    try:
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(template.stacks)  # the worker's go to `trace` since before the fork
        os.close(template.hold)
        # A session of its own: no terminal's signal reaches the worker, and the daemon can kill its whole group.
        os.setsid()
        process.reset_signals(stacks.ASK)
        dispositions.put_back(template.dispositions)
        limits.set_oom_score(template.pool.oom_score_adj)  # not less than the zygote's, so it is allowed
        if template.pool.nice:
            limits.set_session_nice()
        set_title(f"srvd: worker {_name(template, order)}")
        boot = _boot(template, order, link, stderr_read, trace)
        code = main.serve(boot._replace(buffer=buffer, lifeline=_own(template, end)))
        # Handlers of the application's end (flush, deregister), as sys.exit would run them; but sys.exit would also
        # wait for threads that an application forgot. Python has no public name for this function.
        atexit._run_exitfuncs()  # noqa: SLF001
    except BaseException as exc:  # the process ends here, also by an application's sys.exit
        sys.__excepthook__(type(exc), exc, exc.__traceback__)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _name(template: WorkerTemplate, order: links.Fork) -> WorkerId:
    return WorkerId(template.wanted.pool, template.wanted.generation, order.serial)


def _boot(template: WorkerTemplate, order: links.Fork, link: int, stderr_read: int, trace: int) -> Boot:
    home = template.home
    return Boot(
        id=_name(template, order),
        board=template.board,
        slot=order.slot,
        link=socket.socket(fileno=link),
        listening=template.listening,
        application=template.preloaded or partial(loader.load, template.wanted.app, template.pool.interface),
        settings=template.pool,
        home=None if home is None else home._replace(stderr=stderr_read, stacks=trace, lifeline=-1),
        warms=template.warms or template.preloaded is None,
        watch=template.watch,
    )


def _own(template: WorkerTemplate, end: int) -> int:
    """This worker's end of the lifeline; -1 if it has none."""
    if not template.has_lifeline:  # without its handler the signal would end this process
        os.close(end)
        return -1
    deadman.own(end)
    return end
