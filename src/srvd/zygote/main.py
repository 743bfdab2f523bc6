"""A zygote's life up to its first fork: hear what to load, load it, tell how it went, or begin anew without it.

Does not fork; that is `fork_server.py`. A fresh interpreter, blocking, one thread, no asyncio; the daemon watches the
time.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import io
import os
import signal
import socket
import sys
import time
from typing import NoReturn

import msgpack

from srvd.config import packing
from srvd.config.settings import PoolSettings
from srvd.errors import BadFrame, LoadFailed
from srvd.linux import deadman as lifelines
from srvd.linux import dispositions, fds, identity, limits, output, process, stacks
from srvd.linux.proctitle import set_title
from srvd.linux.scoreboard import Board, lanes_of
from srvd.record import Record
from srvd.wire import links
from srvd.worker import forked
from srvd.worker.observe.access_log import STANDARD_OUTPUT
from srvd.worker.reconnect import Home
from srvd.worker.releases import Watch
from srvd.zygote import fronting, loading
from srvd.zygote.fork_server import ForkServer
from srvd.zygote.template import WorkerTemplate

__all__ = ["live"]

BOARD, STACKS, BELL, HOLD = range(4)
"""Where what every zygote is given is among the descriptors of `Load`; then come the listeners."""

_SHARED = 4


class LoadJob(Record):
    """What a zygote was started for: the datagram of `Load` with its descriptors, and what a former life left."""

    datagram: bytes
    fds: list[int]
    notes: list[str]
    seconds: float  # spent in a former life
    fresh: bool  # no former life


class Origin(Record):
    """What the process began with, which an application may change while it is loaded."""

    environ: dict[str, str]
    folder: str
    umask: int
    path: list[str]  # sys.path


def live() -> NoReturn:
    """Be a zygote, as linux/interpreter.py starts it: with LINK_FD, and ERRAND_FD after an exec of its own."""
    arguments = list(sys.argv)
    born = time.monotonic()
    code = 70
    faulthandler.enable(file=2)  # by number, so that a worker's own stderr is written to after the fork
    try:
        link = socket.socket(fileno=int(arguments[1]))
        link.set_inheritable(False)
        output.inherit(over_exec=False)
        _print_by_lines()
        # It imports ctypes (2 ms, 0.7 MiB that workers share): here, since a start's interpreter waits for its errand.
        lifelines.prepare()
        process.raise_open_files()  # here, too: an interpreter that was prepared is older than the daemon's own limit
        errand = _unpack(int(arguments[2])) if len(arguments) > 2 else _hear(link)
        code = 0 if errand is None else _serve(link, errand, born)
    except BaseException as exc:  # the process ends here
        sys.__excepthook__(type(exc), exc, exc.__traceback__)  # not `import traceback`: 5 ms that a start need not wait
    finally:
        # Not sys.exit: that would run what the application registered for its own end, and wait for its threads.
        leave(code)


def _print_by_lines() -> None:
    """A line that is printed is in the log when it was printed, and with those of standard error in their order."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def leave(code: int) -> NoReturn:
    """End the process at once, with what it printed."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _hear(link: socket.socket) -> LoadJob | None:
    """The first message, `Load`; None if the daemon is gone already."""
    received = fds.receive(link, links.LIMIT, fds.FDS_LIMIT, wait=True)
    if not received or not received[0]:
        return None
    return LoadJob(received[0], received[1], [], 0.0, fresh=True)


def _serve(link: socket.socket, errand: LoadJob, born: float) -> int:
    """Load and fork until the daemon lets go; the exit code."""
    origin = Origin(dict(os.environ), _folder(), os.umask(0), list(sys.path))
    os.umask(origin.umask)
    try:
        wanted = _understand(errand.datagram)
        # An application that hangs while it is loaded can be made to say where.
        stacks.tell_to(errand.fds[STACKS])
        set_title(f"srvd: zygote {wanted.pool}@{wanted.generation}")
        pool = packing.unpack(wanted.settings)
        if errand.fresh and pool.access_log != STANDARD_OUTPUT:
            output.close()
        _become(wanted, pool, fresh=errand.fresh)
        folder = loading.enter(wanted)
        watch = Watch(folder)
        watch.begin()
        fds.kill_at_end(link)
        with forked.guarded(lambda: (link.fileno(), *errand.fds)):
            outcome = loading.load(wanted if errand.fresh else wanted._replace(preload="off"))
        fds.kill_at_end(link, on=False)
        home, rest = _home(wanted, errand.fds)
        fronts = [] if outcome.tainted else fronting.make(wanted, rest)
    except LoadFailed as failed:
        _say_failed(link, failed)
        return 1
    except BadFrame as bad:
        _say_failed(link, _misunderstood(bad))
        return 1
    seconds = errand.seconds + time.monotonic() - born
    notes = [*errand.notes, *outcome.notes]
    if outcome.tainted:
        _begin_anew(link, errand._replace(notes=notes, seconds=seconds), origin, outcome)
    board = Board.attach(errand.fds[BOARD], lanes_of(pool.threads), errand.fds[BELL])
    has_lifeline = lifelines.prepare()  # again: an application may have had a handler of its own for the signal
    loaded = links.Loaded(outcome.app is not None, notes, seconds, links.clip(folder))
    fds.send(link, links.encode(loaded), wait=True)
    watch.tell_to(lambda file: fds.send(link, links.encode(links.Mixed(file))))
    # After the answer, which the daemon need not wait for: no garbage is left that a collection in a worker would
    # find, and no object is touched by its collector: those pages stay shared.
    gc.collect()
    gc.freeze()
    listeners = [socket.socket(fileno=fd) for fd in errand.fds[_SHARED : _SHARED + len(wanted.listeners)]]
    nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    trace, hold = errand.fds[STACKS], errand.fds[HOLD]
    stock = WorkerTemplate(
        wanted, outcome.app, board, listeners, pool, outcome.hooks, fronts, trace, has_lifeline, hold, home, nudge,
        outcome.dispositions, watch=watch,
    )  # fmt: skip
    ForkServer(link, stock).run()
    return 0


def _folder() -> str:
    """Where we are; "." if that has been removed, and `chdir` may lead somewhere else."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "."


def _home(wanted: links.Load, passed: list[int]) -> tuple[Home | None, list[int]]:
    """The way back to a daemon, if there is one, and what remains of the descriptors. Raises `BadFrame`."""
    board, stacks, bell, hold, *rest = passed
    listeners, rest = rest[: len(wanted.listeners)], rest[len(wanted.listeners) :]
    if not wanted.rendezvous:
        return None, rest
    if len(rest) < 2:
        raise BadFrame("read what to load: the way home does not fit; the link is closed")
    lock, stderr, *rest = rest
    return Home(wanted.rendezvous, wanted.uid, lock, bell, board, tuple(listeners), stderr, stacks, hold), rest


def _become(wanted: links.Load, pool: PoolSettings, *, fresh: bool) -> None:
    """Take on the pool's limits while we may – its user may not raise any –, then its user, group and umask, before any
    code of the application runs. Raises `LoadFailed`.

    A worker keeps them from us. A `fresh` process has not done it in a former life; one that has settled, before it
    became this interpreter.
    """
    who = None if wanted.settled else identity.resolve(wanted.user, wanted.group)
    if wanted.settled:
        limits.set_limits(pool.rlimits)  # `raise_open_files` has lifted one
    else:
        limits.take_on(
            pool.rlimits,
            pool.nice * fresh,
            pool.oom_score_adj,
            wished=pool.oom_score_adj != PoolSettings("").oom_score_adj,
        )
    if who is not None:
        # Here: it needs ctypes, which not every Python has. Without it /proc/self would be closed to ourselves.
        from srvd.linux.prctl import stay_readable

        try:
            identity.assume(who)
            stay_readable()
        except OSError as exc:
            raise LoadFailed(f"run as {wanted.user}:{wanted.group}: {exc}; the application was not loaded") from exc
    os.environ.update(wanted.environ)
    if wanted.umask >= 0:
        os.umask(wanted.umask)


def _understand(datagram: bytes) -> links.Load:
    wanted = links.decode(datagram, (links.Load,))
    assert isinstance(wanted, links.Load)
    if wanted.protocol != links.PROTOCOL:  # of the scoreboard, too, which would be read and written otherwise
        raise BadFrame(f"read what to load: the daemon speaks version {wanted.protocol}, this zygote {links.PROTOCOL}")
    return wanted


def _misunderstood(bad: BadFrame) -> LoadFailed:
    return LoadFailed(
        f"load with {sys.executable}: its srvd and the daemon's do not understand each other ({bad.message})",
        hint="`srvctl upgrade` if srvd was replaced; else install the daemon's version for this interpreter",
    )


def _say_failed(link: socket.socket, failed: LoadFailed) -> None:
    proof = links.clip(str(failed.detail.get("traceback", "")))
    fds.send(link, links.encode(links.LoadFailed(links.clip(failed.message), failed.hint, proof)), wait=True)


def _begin_anew(link: socket.socket, errand: LoadJob, origin: Origin, outcome: loading.Outcome) -> NoReturn:
    """Become a fresh interpreter without the application; threads, connections and timers end with this one.

    The pid, the link and the descriptors stay, so the daemon notices nothing. Raises `OSError`.
    """
    for child in outcome.children:  # unreaped, so the pid is still its own; each worker starts another
        os.kill(child, signal.SIGTERM)
    load = _understand(errand.datagram)
    packed = msgpack.packb([errand.datagram, errand.fds, errand.notes, errand.seconds])
    note = fds.memfd(f"srvd-errand-{load.generation}", packed)
    for fd in (link.fileno(), note, *errand.fds):
        os.set_inheritable(fd, True)
    if load.settings.get("access_log") == STANDARD_OUTPUT:
        output.inherit(over_exec=True)
    dispositions.clear_timers()  # an exec leaves them
    process.reset_signals()
    # Without their handlers these would end us; until there are some again, they wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, [stacks.ASK, stacks.DUMP])
    with contextlib.suppress(PermissionError):  # the pool's user may not enter it; then it is where we still are
        os.chdir(origin.folder)
    os.umask(origin.umask)
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = list(sys.orig_argv)
    if outcome.unsited:
        # -S: neither sitecustomize nor a .pth file is run. What they would do to sys.path is known, and needed.
        code = arguments.index("-c")
        arguments[code : code + 2] = ["-S", "-c", f"import sys; sys.path[:] = {origin.path!r}; {arguments[code + 1]}"]
    os.execve(sys.executable, [*arguments, str(note)], origin.environ)  # noqa: S606 - no shell is wanted


def _unpack(fd: int) -> LoadJob:
    """What `_begin_anew` packed."""
    with open(fd, "rb") as file:
        datagram, passed, notes, seconds = msgpack.unpackb(file.read())
    for inherited in passed:
        os.set_inheritable(inherited, False)
    return LoadJob(bytes(datagram), [int(fd) for fd in passed], [str(note) for note in notes], float(seconds), False)
