"""A zygote up to its first fork: reads what to load, loads, reports, or begins anew without the application.

Does not fork; `fork_server.py` does. A fresh interpreter with one thread that blocks; the daemon limits the time.
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
from srvd.ids import GenerationId
from srvd.linux import fds, output
from srvd.linux.processes import deadman, dispositions, identity, limits, process, stacks
from srvd.linux.processes.proctitle import set_title
from srvd.linux.scoreboard import Board, lanes_of
from srvd.record import Record
from srvd.wire import links
from srvd.worker import forked
from srvd.worker.app.releases import Watch
from srvd.worker.net.acceptor import Listening
from srvd.worker.observe.access_file import STANDARD_OUTPUT
from srvd.worker.supervision.reconnect import Home
from srvd.zygote import fronting, loading
from srvd.zygote.fork_server import ForkServer
from srvd.zygote.template import WorkerTemplate

__all__ = ["live"]

BOARD, STACKS, BELL, HOLD = range(4)
"""Positions among the descriptors of `Load`; the listeners follow."""

_SHARED = 4


class LoadJob(Record):
    """What to load: the datagram of `Load` with its descriptors, and the notes from before an exec of the zygote."""

    datagram: bytes
    fds: list[int]
    notes: list[str]
    seconds: float  # spent loading before the exec
    fresh: bool  # there was no exec


class Origin(Record):
    """The process at its start; an application may change all of it while it is loaded."""

    environ: dict[str, str]
    folder: str
    umask: int
    path: list[str]  # sys.path


def live() -> NoReturn:
    """Be a zygote. `_zygote_entry.py` has the arguments and descriptors."""
    arguments = list(sys.argv)
    born = time.monotonic()
    code = 70
    faulthandler.enable(file=2)  # by number, so that a worker's own stderr is written to after the fork
    try:
        link = socket.socket(fileno=int(arguments[1]))
        link.set_inheritable(False)
        output.inherit(over_exec=False)
        _print_by_lines()
        # Imports ctypes (2 ms, 0.7 MiB that workers share): here, while a start's interpreter waits for its job.
        deadman.prepare()
        process.raise_open_files()  # here, too: a prepared interpreter is older than the daemon's limit
        job = _unpack(int(arguments[2])) if len(arguments) > 2 else _hear(link)
        code = 0 if job is None else _serve(link, job, born)
    except BaseException as exc:  # the process ends here
        sys.__excepthook__(type(exc), exc, exc.__traceback__)  # not `import traceback`: 5 ms that a start need not wait
    finally:
        # Not sys.exit: that would run what the application registered for its own end, and wait for its threads.
        leave(code)


def _print_by_lines() -> None:
    """Flush after each line, so that the log has printed lines in order with those of standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def leave(code: int) -> NoReturn:
    """Exit at once, after flushing what was printed."""
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


def _serve(link: socket.socket, job: LoadJob, born: float) -> int:
    """Load and fork until the daemon lets go; the exit code."""
    origin = Origin(dict(os.environ), _folder(), os.umask(0), list(sys.path))
    os.umask(origin.umask)
    try:
        wanted = _understand(job.datagram)
        # From here on an application that hangs while it is loaded can be asked for its stacks.
        stacks.tell_to(job.fds[STACKS])
        set_title(f"srvd: zygote {GenerationId(wanted.pool, wanted.generation)}")
        pool = packing.unpack(wanted.settings)
        if job.fresh and pool.access_log != STANDARD_OUTPUT:
            output.close()
        _become(wanted, pool, fresh=job.fresh)
        folder = loading.enter(wanted)
        watch = Watch(folder)
        watch.begin()
        fds.kill_at_end(link)
        with forked.guarded(lambda: (link.fileno(), *job.fds)):
            outcome = loading.load(wanted if job.fresh else wanted._replace(preload="off"))
        fds.kill_at_end(link, on=False)
        home, rest = _home(wanted, job.fds)
        fronts = [] if outcome.tainted else fronting.make(wanted, rest)
    except LoadFailed as failed:
        _say_failed(link, failed)
        return 1
    except BadFrame as bad:
        _say_failed(link, _misunderstood(bad))
        return 1
    seconds = job.seconds + time.monotonic() - born
    notes = [*job.notes, *outcome.notes]
    if outcome.tainted:
        _begin_anew(link, job._replace(notes=notes, seconds=seconds), origin, outcome)
    board = Board.attach(job.fds[BOARD], lanes_of(pool.threads), job.fds[BELL])
    has_lifeline = deadman.prepare()  # again: an application may have had a handler of its own for the signal
    loaded = links.Loaded(outcome.preloaded is not None, notes, seconds, links.clip(folder))
    fds.send(link, links.encode(loaded), wait=True)
    watch.tell_to(lambda file: fds.send(link, links.encode(links.Mixed(file))))
    # After the answer, so that the daemon need not wait. No garbage is left for a collection in a worker, and the
    # collector of a worker touches none of these objects: their pages stay shared.
    gc.collect()
    gc.freeze()
    listeners = [socket.socket(fileno=fd) for fd in job.fds[_SHARED : _SHARED + len(wanted.listeners)]]
    nudge = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    trace, hold = job.fds[STACKS], job.fds[HOLD]
    template = WorkerTemplate(
        wanted, outcome.preloaded, board, Listening(listeners, fronts, nudge), pool, trace, has_lifeline, hold, home,
        outcome.dispositions, watch=watch,
    )  # fmt: skip
    ForkServer(link, template).run()
    return 0


def _folder() -> str:
    """The working directory; "." if it has been removed, since `chdir` may lead somewhere else."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "."


def _home(wanted: links.Load, passed: list[int]) -> tuple[Home | None, list[int]]:
    """The way to a next daemon, None if there is none, and the remaining descriptors. Raises `BadFrame`."""
    board, stacks, bell, hold, *rest = passed
    listeners, rest = rest[: len(wanted.listeners)], rest[len(wanted.listeners) :]
    if not wanted.rendezvous:
        return None, rest
    if len(rest) < 2:
        raise BadFrame("read what to load: the way home does not fit; the link is closed")
    lock, stderr, *rest = rest
    return Home(wanted.rendezvous, wanted.uid, lock, bell, board, tuple(listeners), stderr, stacks, hold), rest


def _become(wanted: links.Load, pool: PoolSettings, *, fresh: bool) -> None:
    """Take on the pool's limits, then its user, group and umask, before any code of the application runs.

    Limits come first, because the pool's user may not raise any. Workers inherit all of it. Raises `LoadFailed`.

    fresh: False after an exec of the zygote, which keeps the nice value; `wanted.settled`: limits and user were set
    before the process became this interpreter.
    """
    user = None if wanted.settled else identity.resolve(wanted.user, wanted.group)
    if wanted.settled:
        limits.set_limits(pool.rlimits)  # `raise_open_files` has lifted one
    else:
        limits.take_on(
            pool.rlimits,
            pool.nice * fresh,
            pool.oom_score_adj,
            wished=pool.oom_score_adj != PoolSettings("").oom_score_adj,
        )
    if user is not None:
        # Imported here: needs ctypes, which not every Python has. Without this call /proc/self could not be read.
        from srvd.linux.processes.prctl import stay_readable

        try:
            identity.assume(user)
            stay_readable()
        except OSError as exc:
            raise LoadFailed(f"run as {wanted.user}:{wanted.group}: {exc}; the application was not loaded") from exc
    os.environ.update(wanted.environ)
    if wanted.umask >= 0:
        os.umask(wanted.umask)


def _understand(datagram: bytes) -> links.Load:
    wanted = links.decode(datagram, (links.Load,))
    assert isinstance(wanted, links.Load)
    if wanted.protocol != links.PROTOCOL:  # also of the scoreboard's layout
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


def _begin_anew(link: socket.socket, job: LoadJob, origin: Origin, outcome: loading.Outcome) -> NoReturn:
    """Become a fresh interpreter without the application, so that threads, connections and timers end.

    The pid, the link and the descriptors stay: the daemon notices nothing. Raises `OSError`.
    """
    for child in outcome.children:  # not reaped, so the pid is still its own; each worker starts another
        os.kill(child, signal.SIGTERM)
    load = _understand(job.datagram)
    packed = msgpack.packb([job.datagram, job.fds, job.notes, job.seconds])
    note = fds.memfd(f"srvd-load-{load.generation}", packed)
    for fd in (link.fileno(), note, *job.fds):
        os.set_inheritable(fd, True)
    if load.settings.get("access_log") == STANDARD_OUTPUT:
        output.inherit(over_exec=True)
    dispositions.clear_timers()  # they would survive the exec
    process.reset_signals()
    # Without handlers these signals would end the process; they stay blocked until there are handlers again.
    signal.pthread_sigmask(signal.SIG_BLOCK, [stacks.ASK, stacks.DUMP])
    with contextlib.suppress(
        PermissionError
    ):  # the pool's user may not enter the folder; then the process stays where it is
        os.chdir(origin.folder)
    os.umask(origin.umask)
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = list(sys.orig_argv)
    if outcome.unsited:
        # -S: neither sitecustomize nor a .pth file is run. Their changes of sys.path are known, and needed.
        code = arguments.index("-c")
        arguments[code : code + 2] = ["-S", "-c", f"import sys; sys.path[:] = {origin.path!r}; {arguments[code + 1]}"]
    os.execve(sys.executable, [*arguments, str(note)], origin.environ)  # noqa: S606 - no shell is wanted


def _unpack(fd: int) -> LoadJob:
    """The job that `_begin_anew` has packed."""
    with open(fd, "rb") as file:
        datagram, passed, notes, seconds = msgpack.unpackb(file.read())
    for inherited in passed:
        os.set_inheritable(inherited, False)
    return LoadJob(bytes(datagram), [int(fd) for fd in passed], [str(note) for note in notes], float(seconds), False)
