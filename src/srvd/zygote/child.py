"""What a fork of the zygote does before it is a worker: its own session, stderr, stacks, title. Then it serves.

Runs once a process and never returns.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from srvd.ids import WorkerId
from srvd.linux import deadman, dispositions, limits, process, stacks
from srvd.linux.proctitle import set_title
from srvd.wire import links
from srvd.worker import app_loader, main

if TYPE_CHECKING:
    from srvd.worker.observe.access_buffer import AccessBuffer
    from srvd.zygote.template import WorkerTemplate

__all__ = ["PASSED", "STACKS", "become"]

PASSED = 5
"""Descriptors that come with the order to fork."""

STACKS = 2
"""Where the file for a worker's stacks is, among the descriptors that come with the order."""

_BUG = 70


def become(stock: WorkerTemplate, order: links.Fork, lines: AccessBuffer | None, passed: list[int]) -> NoReturn:
    """Turn this fresh child into the worker that was ordered, serve, and end with the result of serving.

    `passed` came with the order; `lines` are those of its access log, if it has one.
    """
    link, stderr, trace, stderr_read, end = passed
    code = _BUG
    try:
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(stock.stacks)  # its own are told to `trace` since before the fork
        os.close(stock.hold)
        # A session of its own: no terminal's signal reaches it, and the daemon can end all that it starts.
        os.setsid()
        process.reset_signals(stacks.ASK)
        dispositions.put_back(stock.dispositions)
        limits.set_oom_score(stock.pool.oom_score_adj)  # the zygote has the same, or less: then it is allowed
        if stock.pool.nice:
            limits.set_session_nice()
        set_title(f"srvd: worker {WorkerId(stock.wanted.pool, stock.wanted.generation, order.serial)}")
        boot = _boot(stock, order, link, stderr_read, trace)
        code = main.serve(boot._replace(lines=lines, lifeline=_own(stock, end)))
        # What applications and libraries do at their end (flush, deregister), as they would under sys.exit – which
        # would also wait for threads that an application forgot. Python has no public name for it.
        atexit._run_exitfuncs()  # noqa: SLF001
    except BaseException as exc:  # the process ends here; sys.exit is no way for an application to end a worker
        sys.__excepthook__(type(exc), exc, exc.__traceback__)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _boot(stock: WorkerTemplate, order: links.Fork, link: int, stderr_read: int, trace: int) -> main.Boot:
    home = stock.home
    return main.Boot(
        pool=stock.wanted.pool,
        generation=stock.wanted.generation,
        serial=order.serial,
        slot=order.slot,
        link=socket.socket(fileno=link),
        listeners=stock.listeners,
        board=stock.board,
        app=stock.app,
        load=partial(_load, stock.wanted.app),
        settings=stock.pool,
        hooks=stock.hooks,
        fronts=stock.fronts,
        nudge=stock.nudge,
        home=None if home is None else home._replace(stderr=stderr_read, stacks=trace, lifeline=-1),
        warms=stock.warms or stock.app is None,
        watch=stock.watch,
    )


def _load(app: str) -> object:
    if sys.flags.no_site:  # left to each worker, see `main.py`
        import site

        site.main()
    return app_loader.load(app)


def _own(stock: WorkerTemplate, end: int) -> int:
    """This worker's end of the lifeline; -1: it has none."""
    if not stock.has_lifeline:  # without its handler the signal would end this process
        os.close(end)
        return -1
    deadman.own(end)
    return end
