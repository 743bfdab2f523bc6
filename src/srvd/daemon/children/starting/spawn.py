"""Starts a zygote: the pool's interpreter, and the message `Load` with all descriptors that it needs.

Emits no event; `zygotes.py` follows the process from then on.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

import msgpack

from srvd.config import packing
from srvd.daemon.children.output import Output
from srvd.daemon.children.process import Process
from srvd.daemon.children.stack_file import make_file
from srvd.daemon.children.starting.launch import later, launch, with_user_variables
from srvd.daemon.children.zygote import Fronts, Named, ZygoteSpec
from srvd.daemon.family.lock import FamilyLock
from srvd.ids import GenerationId
from srvd.linux import fds
from srvd.linux.processes import process
from srvd.linux.scoreboard import Bell
from srvd.linux.sockets import describe
from srvd.record import Record
from srvd.tls import material
from srvd.wire import links

__all__ = ["Shared", "keyless", "start_zygote"]

_FAMILIES = {socket.AF_INET: "inet", socket.AF_INET6: "inet6", socket.AF_UNIX: "unix"}


class Shared(Record):
    """The descriptors that a zygote shares with the workers of its generation, and the bell of all generations."""

    board: int
    bell: Bell
    hold: int  # the lifeline's end to hold


def start_zygote(
    generation: GenerationId,
    spec: ZygoteSpec,
    shared: Shared,
    line: Callable[[str], None],
    family_lock: FamilyLock | None,
) -> Process:
    """Start a zygote and tell it what to load.

    Raises `OSError`: no such interpreter, no process or descriptor to be had. Raises `LoadFailed`: no such user.

    line: called with each line that the zygote writes to stderr.
    """
    spec = spec._replace(pool=with_user_variables(spec.pool))
    stacks = make_file()
    try:
        started = launch(spec.pool)
    except BaseException:
        os.close(stacks)
        raise
    child = Process(started.pid, started.pidfd, started.link, Output(started.stderr, line), stacks)
    try:
        fds.refuse_rights(started.link)
        load = _load(generation, spec, family_lock)._replace(settled=started.settled)
        opened = _open(shared.bell, started.stderr, spec, family_lock)
        _tell(started.link, load, (shared.board, stacks, shared.hold), spec.listeners, opened)
    except BrokenPipeError:
        return child  # the process has ended already; its end will be reported as any other
    except BaseException:
        process.send_signal(child.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        child.close()
        raise
    return child


def keyless(listeners: Named, fronts: Fronts) -> list[str]:
    """The names of listeners that speak TLS and whose keys are not known.

    The keys of a configuration that a daemon has read are lost when that daemon dies. Without keys such a listener
    would serve unencrypted.
    """
    secured = {name for name, listener in fronts.settings.items() if listener.certificate}
    return sorted({name for name, _ in listeners if name in secured and name not in fronts.tls})


def _tell(
    link: socket.socket, load: links.Load, shared: tuple[int, int, int], listeners: Named, opened: list[int]
) -> None:
    """Send `Load` with its descriptors, in the order in which `zygote/main.py` takes them. Closes those in `opened`."""
    board, stacks, hold = shared
    bell, *more = opened
    try:
        # The link has room, since nothing was sent yet: LIMIT is less than half of the smallest default buffer.
        fds.send(
            link, links.encode(load), [board, stacks, bell, hold, *(sock.fileno() for _, sock in listeners), *more]
        )
    finally:
        fds.close_all(opened)


def _open(bell: Bell, stderr: int, spec: ZygoteSpec, family_lock: FamilyLock | None) -> list[int]:
    """Open what the zygote is given to itself: the bell to read, the way to a next daemon, and a memfd with the
    certificates and keys of the listeners, as far as they are needed. Raises `OSError`.

    The memfd is there because the user of the application may not read the files themselves.
    """
    opened: list[int] = []
    try:
        opened.append(bell.reader())
        if family_lock is not None:
            opened.append(family_lock.share())
            opened.append(os.open(f"/proc/self/fd/{stderr}", os.O_RDONLY | os.O_CLOEXEC))
        tls = spec.fronts.tls
        packed = {name: material.pack(tls[name]) for name, _ in spec.listeners if name in tls}
        if packed:
            opened.append(fds.memfd("srvd-tls", msgpack.packb(packed)))
    except BaseException:
        fds.close_all(opened)
        raise
    return opened


def _load(generation: GenerationId, spec: ZygoteSpec, family_lock: FamilyLock | None) -> links.Load:
    pool, fronts = spec.pool, spec.fronts
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
            for name, sock in spec.listeners
        ],
        settings=packing.pack(pool),
        rendezvous=family_lock.rendezvous if family_lock is not None else "",
        uid=os.geteuid(),
        environ=later(pool),
    )
