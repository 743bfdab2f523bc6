"""Starts a zygote: the pool's interpreter, and the message `Load` with all descriptors that it needs.

Emits no event; `zygotes.py` follows the process from then on.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgpack

from srvd.config import packing
from srvd.config.settings import ListenerSettings, PoolSettings
from srvd.daemon.children.output import Output
from srvd.daemon.children.process import Process
from srvd.daemon.children.stack_file import make_file
from srvd.daemon.family.lock import FamilyLock
from srvd.errors import LoadFailed
from srvd.ids import GenerationId
from srvd.linux import fds
from srvd.linux.interpreter import Started, pinned, start, take
from srvd.linux.processes import identity, limits, process
from srvd.linux.processes.identity import Identity
from srvd.linux.scoreboard import Bell
from srvd.linux.sockets import describe
from srvd.record import Record
from srvd.tls import material
from srvd.tls.material import Material
from srvd.wire import links

__all__ = ["NO_FRONTS", "Fronts", "Named", "Shared", "interpreter", "keyless", "start_zygote"]

_FAMILIES = {socket.AF_INET: "inet", socket.AF_INET6: "inet6", socket.AF_UNIX: "unix"}

Named = Sequence[tuple[str, socket.socket]]


class Shared(Record):
    """The descriptors that a zygote shares with the workers of its generation, and the bell of all generations."""

    board: int
    bell: Bell
    hold: int  # the lifeline's end to hold


class Fronts(Record):
    """Settings and certificates of listeners, by name: TLS, PROXY protocol, trusted proxies."""

    settings: Mapping[str, ListenerSettings]
    tls: Mapping[str, Material]


NO_FRONTS = Fronts({}, {})


def interpreter(pool: PoolSettings) -> str:
    """The interpreter that runs the pool's application: a path, or a name on PATH."""
    return pool.python or sys.executable


def start_zygote(
    generation: GenerationId,
    pool: PoolSettings,
    shared: Shared,
    listeners: Named,
    line: Callable[[str], None],
    fronts: Fronts = NO_FRONTS,
    family_lock: FamilyLock | None = None,
) -> Process:
    """Start a zygote and tell it what to load.

    Raises `OSError`: no such interpreter, no process or descriptor to be had. Raises `LoadFailed`: no such user.

    line: called with each line that the zygote writes to stderr.
    """
    pool = pool._replace(env={**identity.environment(pool.user), **pool.env})
    stacks = make_file()
    try:
        started = _start(pool)
    except BaseException:
        os.close(stacks)
        raise
    child = Process(started.pid, started.pidfd, started.link, Output(started.stderr, line), stacks)
    secrets = -1
    opened: list[int] = []
    try:
        fds.refuse_rights(started.link)
        opened.append(shared.bell.reader())
        passed = [shared.board, stacks, opened[0], shared.hold, *(sock.fileno() for _, sock in listeners)]
        if family_lock is not None:
            opened += [family_lock.share(), os.open(f"/proc/self/fd/{started.stderr}", os.O_RDONLY | os.O_CLOEXEC)]
            passed += opened[1:]
        secrets = _secrets(listeners, fronts)
        if secrets >= 0:
            passed.append(secrets)
        # The link has room, since nothing was sent yet: LIMIT is less than half of the smallest default buffer.
        load = _load(generation, pool, listeners, fronts, family_lock)
        fds.send(started.link, links.encode(load._replace(settled=started.settled, environ=_later(pool))), passed)
    except BrokenPipeError:
        return child  # the process has ended already; its end will be reported as any other
    except BaseException:
        process.send_signal(child.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        child.close()
        raise
    finally:
        fds.close_all([*opened, secrets] if secrets >= 0 else opened)
    return child


def keyless(listeners: Named, fronts: Fronts) -> list[str]:
    """The names of listeners that speak TLS and whose keys are not known.

    The keys of a configuration that a daemon has read are lost when that daemon dies. Without keys such a listener
    would serve unencrypted.
    """
    secured = {name for name, listener in fronts.settings.items() if listener.certificate}
    return sorted({name for name, _ in listeners if name in secured and name not in fronts.tls})


def _secrets(listeners: Named, fronts: Fronts) -> int:
    """A memfd with the certificates and keys of the listeners; -1 if none speaks TLS.

    The zygote reads it by the descriptor that is passed: the application's user may not read the files themselves.
    """
    packed = {name: material.pack(fronts.tls[name]) for name, _ in listeners if name in fronts.tls}
    return fds.memfd("srvd-tls", msgpack.packb(packed)) if packed else -1


def _start(pool: PoolSettings) -> Started:
    """Start the interpreter of the pool, as the pool's user where that is necessary.

    The pool's own interpreter, and code that its variables let an interpreter load, never run as root: the process
    becomes the user first. The daemon's interpreter with the daemon's variables starts as the daemon's user, which is
    quicker and needs no permission to read it; it becomes the pool's user before it touches anything else.
    """
    program, user = pinned(interpreter(pool)), identity.resolve(pool.user, pool.group)
    if user is None:
        return take(program, pool.env)
    if _later(pool) == pool.env and program == pinned(sys.executable):
        return take(program, {})
    return start(program, pool.env, partial(_settle, pool, user))


def _later(pool: PoolSettings) -> dict[str, str]:
    """The variables that may be set while the interpreter runs already: those by which neither the interpreter nor the
    dynamic loader finds code.
    """
    return {name: value for name, value in pool.env.items() if not name.startswith(("LD_", "PYTHON"))}


def _settle(pool: PoolSettings, user: Identity) -> None:
    """Take on limits and user, in the new process, before it touches anything of the user's. Raises `LoadFailed`."""
    limits.take_on(
        pool.rlimits, pool.nice, pool.oom_score_adj, wished=pool.oom_score_adj != PoolSettings("").oom_score_adj
    )
    try:
        identity.assume(user)
    except OSError as exc:
        raise LoadFailed(f"run as {pool.user}:{pool.group}: {exc}; the application was not loaded") from exc


def _load(
    generation: GenerationId, pool: PoolSettings, listeners: Named, fronts: Fronts, family_lock: FamilyLock | None
) -> links.Load:
    return links.Load(
        pool=generation.pool,
        generation=generation.number,
        app=pool.app,
        preload=pool.preload,
        chdir=pool.chdir,
        pythonpath=list(pool.pythonpath),
        umask=int(pool.umask, 8) if pool.umask else -1,
        user=pool.user,
        group=pool.group,
        listeners=[
            {
                "name": name,
                "address": describe(sock),
                "family": _FAMILIES[socket.AddressFamily(sock.family)],
                "front": packing.pack_front(fronts.settings[name]) if name in fronts.settings else {},
            }
            for name, sock in listeners
        ],
        settings=packing.pack(pool),
        rendezvous=family_lock.rendezvous if family_lock is not None else "",
        uid=os.geteuid(),
    )
