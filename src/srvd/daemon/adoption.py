"""A start that finds the family of a daemon that died: whom it can go on with, and what it lacks for that.

Gives no order before all is known; `main.py` goes on with what is left of the former daemon's state. Who lives and has
not called by then is known by its pid and its start, and is adopted all the same: it is busy, and calls when it can.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable

import msgpack

from srvd.core.events import Event, Resumed, WorkerGone, ZygoteGone
from srvd.core.model import Death, GenerationId, WorkerId
from srvd.daemon import handover
from srvd.daemon.bond import Bond
from srvd.daemon.handover import Handover, Shell
from srvd.daemon.kept import Kept
from srvd.daemon.listeners import Carried, Listening
from srvd.daemon.orphans import Calls, Orphan
from srvd.daemon.perform import Family
from srvd.daemon.stacks import make_file
from srvd.errors import BadFrame, SystemRefused, Unsupported
from srvd.linux import fds, process, procfs
from srvd.linux.process import Ended
from srvd.linux.scoreboard import Board, LaneFacts
from srvd.record import Record
from srvd.wire import family

__all__ = ["SCOREBOARD", "Adoption", "Will", "boot_id", "find", "name_of", "pack", "unpack"]

CALLS = 1.0
"""Seconds in which everybody has called who is not busy: five calls."""

LATEST = 30.0
"""Seconds within which what is needed has to be there: all who have it may be in long requests."""

SCOREBOARD = "scoreboard"

Member = WorkerId | GenerationId


class Will(Record):
    """What the state file says."""

    boot: str  # of the machine: pids and clocks are good for one
    starts: dict[str, int]  # start_time of each process, by its name among the kept
    inodes: dict[str, int]  # of the other descriptors, by theirs
    sums: dict[str, int]  # of certificates, by listener
    state: bytes  # of `handover.py`


def pack(will: Will) -> bytes:
    return bytes(msgpack.packb(list(will)))


def unpack(data: bytes) -> Will:
    """Raises `Unsupported`."""
    try:
        boot, starts, inodes, sums, state = msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, OverflowError) as exc:
        raise Unsupported(f"read the state: it is none ({exc!r})") from exc
    tables = all(
        isinstance(table, dict) and all(type(number) is int for number in table.values())
        for table in (starts, inodes, sums)
    )
    if not tables or not isinstance(boot, str) or not isinstance(state, bytes):
        raise Unsupported("read the state: it does not fit")
    return Will(boot, starts, inodes, sums, state)


def boot_id() -> str:
    """Names this run of the kernel (random(4)); "" where /proc shows processes alone (proc(5), subset=pid).

    Then pid, start and lock have to tell who somebody is, and they do: this only spares the looking.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def name_of(member: Member) -> str:
    """As its process is called among the kept."""
    return f"{'worker' if isinstance(member, WorkerId) else 'zygote'} {member}"


class Alive(Record):
    pid: int
    pidfd: int


class Stray(Record):
    """Of the family, and of no use. It was told to leave."""

    pid: int
    pidfd: int


class Adoption(Record):
    """What a daemon goes on with."""

    found: Handover
    kept: Kept
    events: list[Event]  # the first ones, in order
    late: dict[Member, int]  # who has not called yet, with its pid
    strays: list[Stray]  # who was sent away
    sums: dict[str, int]  # of the certificates in force, by listener


def find(bond: Bond, calls: Calls, data: bytes, say: Callable[[str], None]) -> Adoption | None:
    """Waits for those whom the state names; None: nobody of them lives. `say` is told if it takes longer.

    Raises `Unsupported`: the state is none that can be gone on with; `SystemRefused`: somebody lives, and does not
    bring what is needed. Nobody has been told anything then, and all descriptors are closed.
    """
    will = unpack(data)
    if will.boot != boot_id():
        return None
    found = handover.read(will.state)
    if not found.house.started or found.house.stop is not None:
        raise Unsupported("the former daemon died while it was starting or stopping")
    alive = _living(will, found.shell.family)
    heard: list[Orphan] = []
    try:
        if not alive:
            return None
        strangers = _gather(will, found.shell.listening, alive, calls, heard, say)
        for orphan in heard:
            if bond.take(os.dup(orphan.lock)):
                break
        return _make(will, found, alive, heard, strangers)
    except BaseException:
        for orphan in heard:
            orphan.close()
        for one in alive.values():
            os.close(one.pidfd)
        raise


def _living(will: Will, known: Family) -> dict[Member, Alive]:
    """Those of the family that live, by pid and start. One that was loading dies with its daemon."""
    pids: dict[Member, int] = {one.id: one.pid for one in known.workers if one.pid}
    pids |= {one.id: one.pid for one in known.zygotes if one.forks}
    alive: dict[Member, Alive] = {}
    for member, pid in pids.items():
        try:
            pidfd = process.open_pidfd(pid)
        except OSError:
            continue
        # In this order: what has this start now had the pid when it was opened.
        if procfs.start_time(pid) == will.starts.get(name_of(member), -1) and not process.is_over(pidfd):
            alive[member] = Alive(pid, pidfd)
        else:
            os.close(pidfd)
    return alive


def _gather(
    will: Will,
    listening: Listening,
    alive: dict[Member, Alive],
    calls: Calls,
    heard: list[Orphan],
    say: Callable[[str], None],
) -> list[Orphan]:
    """Fills `heard`; who dies meanwhile is taken out of `alive`. Strangers are who called and are not known."""
    strangers: list[Orphan] = []
    began = time.monotonic()
    told = False
    while True:
        came = {orphan.id for orphan in heard}
        for member in [member for member, one in alive.items() if process.is_over(one.pidfd)]:
            os.close(alive.pop(member).pidfd)
        missing = alive.keys() - came
        lacking = _lacking(will, listening, heard)
        passed = time.monotonic() - began
        if not missing or (passed > CALLS and not lacking):
            return strangers
        if passed > LATEST:
            pids = ", ".join(str(alive[member].pid) for member in missing)
            raise SystemRefused(
                f"adopt what a daemon that died has left: its processes {pids} live, and did not bring "
                f"{', '.join(lacking)} within {LATEST:g} s; nothing was started",
                hint="they leave when their requests are over, or can be ended with kill",
            )
        if passed > CALLS and not told:
            told = True
            say(f"waiting for {len(missing)} busy processes of a daemon that died: they have {', '.join(lacking)}")
        for orphan in calls.hear(0.05):
            known = alive.get(orphan.id)
            (heard if known is not None and known.pid == orphan.pid and orphan.id not in came else strangers).append(
                orphan
            )


def _lacking(will: Will, listening: Listening, heard: Iterable[Orphan]) -> list[str]:
    """What nobody has brought; resting listeners are brought by who is kept for a rollback, or not at all."""
    brought = {os.fstat(fd).st_ino for orphan in heard for fd in (orphan.board, *orphan.listeners)}
    resting = {f"listener {number}" for number, one in enumerate(listening.sockets) if one.resting}
    return [name for name, inode in will.inodes.items() if inode not in brought and name not in resting]


def _make(
    will: Will, found: Handover, alive: dict[Member, Alive], heard: list[Orphan], strangers: list[Orphan]
) -> Adoption:
    kept = Kept()
    ended = _told_ends(heard)
    listening = _give_shared(found.shell, will, heard, kept)
    events = [_resumed(heard, strangers), *_deaths(found.shell.family, alive, ended, kept.find(SCOREBOARD))]
    came = {orphan.id: orphan for orphan in heard}
    for member, one in alive.items():
        name, orphan = name_of(member), came.get(member)
        kept.give(f"{name} pidfd", one.pidfd)
        if orphan is None:  # stand-ins for what it brings when it calls
            kept.give(f"{name} stderr", _ended_pipe())
            kept.give(f"{name} stacks", make_file())
        else:
            os.close(orphan.pidfd)
            kept.give(f"{name} link", orphan.link.detach())
            kept.give(f"{name} stderr", orphan.stderr)
            kept.give(f"{name} stacks", orphan.stacks)
    known = found.shell.family
    left = known._replace(
        zygotes=tuple(one for one in known.zygotes if one.id in alive),
        workers=tuple(one for one in known.workers if one.id in alive),
    )
    late = {member: one.pid for member, one in alive.items() if member not in came}
    strays = [stray for orphan in strangers for stray in send_away(orphan)]
    ids = set(alive)
    strays += [stray for orphan in heard for stray in _unknown_children(orphan, ids)]
    shell = found.shell._replace(listening=listening, family=left)
    return Adoption(Handover(found.house, shell), kept, events, late, strays, will.sums)


def _ended_pipe() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def _give_shared(shell: Shell, will: Will, heard: list[Orphan], kept: Kept) -> Listening:
    """The scoreboard and the listeners, each once; what is known of those that were brought."""
    brought: dict[int, int] = {}
    for orphan in heard:
        os.close(orphan.lock)
        for fd in (orphan.board, *orphan.listeners):
            inode = os.fstat(fd).st_ino
            if inode in brought:
                os.close(fd)
            else:
                brought[inode] = fd
    kept.give("scoreboard", brought.pop(will.inodes[SCOREBOARD]))
    found: list[Carried] = []
    for number, one in enumerate(shell.listening.sockets):
        fd = brought.pop(will.inodes.get(f"listener {number}", -1), -1)
        if fd >= 0:
            kept.give(f"listener {len(found)}", fd)
            found.append(one)
    fds.close_all(brought.values())
    return shell.listening._replace(sockets=tuple(found))


def _told_ends(heard: list[Orphan]) -> dict[WorkerId, Ended]:
    """How workers ended while there was no daemon: their zygotes say so right after they have called."""
    ended: dict[WorkerId, Ended] = {}
    for orphan in heard:
        while not orphan.here.serial:
            try:
                received = fds.receive(orphan.link, family.LIMIT)
                message = family.decode(received[0], (family.Reaped,)) if received else None
            except (OSError, BadFrame):
                break  # its link will tell the same to whoever reads it next
            if not isinstance(message, family.Reaped):
                break
            who = WorkerId(orphan.here.pool, orphan.here.generation, message.serial)
            ended[who] = Ended(message.exit_code, message.signal)
    return ended


def _resumed(heard: list[Orphan], strangers: list[Orphan]) -> Resumed:
    workers = [(orphan.id, orphan.here.draining) for orphan in heard if isinstance(orphan.id, WorkerId)]
    children = [
        WorkerId(orphan.here.pool, orphan.here.generation, serial)
        for orphan in (*heard, *strangers)
        for serial, _ in (*orphan.here.children, (orphan.here.serial, 0))
    ]
    return Resumed(
        tuple(sorted(worker for worker, draining in workers if not draining)),
        tuple(sorted(worker for worker, draining in workers if draining)),
        tuple(sorted(children)),
    )


def _deaths(known: Family, alive: dict[Member, Alive], ended: dict[WorkerId, Ended], board: int) -> list[Event]:
    """Whom the state knows, and who is gone."""
    lost: list[Event] = [
        ZygoteGone(one.id, "it ended with its daemon, or after it") for one in known.zygotes if one.id not in alive
    ]
    page = Board.attach(os.dup(board))
    for one in known.workers:
        if one.pid and one.id not in alive:
            facts = page.read(one.slot)
            how = ended.get(one.id, Ended())
            lost.append(WorkerGone(one.id, _death(facts, how)))
    page.close()
    return lost


def _death(facts: LaneFacts, how: Ended) -> Death:
    return Death(
        exit_code=how.exit_code,
        signal=how.signal,
        request_line=facts.line,
        request_age=max(time.monotonic() - facts.began, 0.0) if facts.busy else 0.0,
        requests=facts.requests,
        unseen=how == Ended(),
    )


def send_away(orphan: Orphan) -> list[Stray]:
    """Tell it to leave, and whom of its children it named; its descriptors are closed."""
    gone = [Stray(orphan.pid, os.dup(orphan.pidfd)), *_unknown_children(orphan, set())]
    orphan.dismiss()
    return gone


def _unknown_children(orphan: Orphan, known: set[Member]) -> list[Stray]:
    """Those of its children that came to be after the state was written, told to leave."""
    strays = []
    for serial, pid in orphan.here.children:
        if WorkerId(orphan.here.pool, orphan.here.generation, serial) in known:
            continue
        try:
            pidfd = process.open_pidfd(pid)
        except (OSError, OverflowError):
            continue
        # A zygote that went bad may name anybody: only what is its child is ever signalled.
        if procfs.parent(pid) == orphan.pid and process.send_signal(pidfd, signal.SIGTERM):
            strays.append(Stray(pid, pidfd))
        else:
            os.close(pidfd)
    return strays


def dissolve(bond: Bond, calls: Calls | None, say: Callable[[str], None]) -> tuple[list[Stray], list[int]]:
    """Send everybody away who calls, when their requests are over; who they are, and the listeners that they brought.

    Raises `SystemRefused`: somebody lives, and does not call.
    """
    strays: list[Stray] = []
    listeners: list[int] = []
    began = heard = time.monotonic()
    told = False
    while not (bond.is_held and time.monotonic() - heard > CALLS):
        for orphan in calls.hear(0.05) if calls is not None else ():
            heard = time.monotonic()
            bond.take(os.dup(orphan.lock))
            listeners += [os.dup(fd) for fd in orphan.listeners]
            strays += send_away(orphan)
        if calls is None:
            time.sleep(0.05)
        if not bond.is_held and bond.try_again():
            break
        passed = time.monotonic() - began
        if passed > LATEST:
            fds.close_all([*listeners, *(stray.pidfd for stray in strays)])
            raise SystemRefused(
                f"start: somebody of a daemon that died lives, has {bond.path} open, and does not answer; "
                "nothing was started",
                hint=f"`fuser {bond.path}` names the processes; they leave when their requests are over",
            )
        if passed > 2 * CALLS and not told:
            told = True
            say(f"waiting for those who have {bond.path} open: a daemon that died has left them")
    return strays, listeners
