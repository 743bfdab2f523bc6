"""A start that finds the family of a daemon that died: whom it can go on with, and what it lacks for that.

Gives no order before all is known; `main.py` goes on with what is left of the former daemon's state. Who lives and has
not called by then is known by its pid and its start, and is adopted all the same: it is busy, and calls when it can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from srvd.config.settings import Config
from srvd.core.events import Event, Resumed, WorkerGone, ZygoteGone
from srvd.core.model import Death, WorkerId
from srvd.daemon import handover, will
from srvd.daemon import worker as employed
from srvd.daemon.bond import Bond
from srvd.daemon.handover import Handover, Shell
from srvd.daemon.kept import Kept
from srvd.daemon.listeners import Carried, Listening
from srvd.daemon.orphans import Calls, Estate, Orphan
from srvd.daemon.perform import Family
from srvd.daemon.stacks import make_file
from srvd.daemon.strays import CALLS, LATEST, Stray, send_away, unknown_children
from srvd.daemon.will import SCOREBOARD, Member, Will, boot_id, name_of
from srvd.errors import SystemRefused, Unsupported
from srvd.linux import process, procfs
from srvd.linux.process import Ended
from srvd.linux.scoreboard import Board, LaneFacts
from srvd.record import Record

__all__ = ["Adoption", "Former", "find", "look"]


MOST = 1024
"""Callers that are not known, and are held on to until it is clear what becomes of all. A worker that goes bad could
call without end.
"""


class Alive(Record):
    pid: int
    pidfd: int


class Former(Record):
    """A daemon that died, by its state, and those of its family that live."""

    will: Will
    found: Handover
    alive: dict[Member, Alive]

    def close(self) -> None:
        for one in self.alive.values():
            os.close(one.pidfd)


class Adoption(Record):
    """What a daemon goes on with."""

    found: Handover
    kept: Kept
    events: list[Event]  # the first ones, in order
    strays: list[Stray]  # who was sent away
    sums: dict[str, int]  # of the certificates in force, by listener

    def with_room(self, config: Config, spare: int, say: Callable[[str], None]) -> Config:
        """The configuration with the `max_workers` that can be in force, which the core is told: the scoreboard that
        everybody has cannot grow. `spare` slots of it are beyond twice the limit.
        """
        board = Board.attach(os.dup(self.kept.find(SCOREBOARD)))
        most = (board.slots - spare) // 2
        board.close()
        wanted, house = config.daemon.max_workers, self.found.house
        limit = house.limit = min(wanted, most)
        if limit < wanted:
            say(
                f"daemon.max_workers: {limit} stays in force, {wanted} was not taken over: the scoreboard of the "
                "daemon that died has no more room, and its workers use it; stop srvd and start it to change that"
            )
        wished = sum(pool.wish for pool in house.pools.values() if not pool.removed)
        if wished > limit:
            say(
                f"daemon.max_workers is {limit}, and {wished} workers run by orders that were given before; they stay, "
                "and a reload is refused, until `srvctl scale` has brought that down"
            )
        return config._replace(daemon=config.daemon._replace(max_workers=limit))


def look(data: bytes) -> Former | None:
    """Those whom the state names; None: it is of another boot, and nobody lives.

    To be called before anybody can call: who had ended by then was told of by its zygote when that calls. Raises
    `Unsupported`: the state is none that can be gone on with; `OSError`: no descriptor is to be had.
    """
    read = will.unpack(data)
    if read.boot != boot_id():
        return None
    found = handover.read(read.state)
    if not found.house.started or found.house.stop is not None:
        raise Unsupported("the former daemon died while it was starting or stopping")
    return Former(read, found, _living(read, found.shell.family))


def find(former: Former, bond: Bond, calls: Calls, say: Callable[[str], None]) -> Adoption | None:
    """Waits for those whom the state names; None: nobody of them lives. `say` is told if it takes longer.

    Raises `SystemRefused`: somebody lives, and does not bring what is needed. Nobody has been told anything then, nor
    if it is None, and all descriptors are closed.
    """
    heard: list[Orphan] = []
    strangers: list[Orphan] = []
    estate = Estate()
    try:
        if former.alive:
            _gather(former, bond, calls, heard, strangers, estate, say)
        if heard:
            return _make(former, heard, strangers, estate)
    except BaseException:
        _close(former, heard, strangers, estate)
        raise
    _close(former, heard, strangers, estate)
    return None


def _close(former: Former, heard: list[Orphan], strangers: list[Orphan], estate: Estate) -> None:
    for orphan in (*heard, *strangers):
        orphan.close()
    estate.close()
    former.close()


def _living(read: Will, known: Family) -> dict[Member, Alive]:
    """Those of the family that live, by pid and start. One that was loading dies with its daemon."""
    pids: dict[Member, int] = {one.id: one.pid for one in known.workers if one.pid}
    pids |= {one.id: one.pid for one in known.zygotes if one.forks}
    alive: dict[Member, Alive] = {}
    for member, pid in pids.items():
        try:
            pidfd = process.open_pidfd(pid)
        except ProcessLookupError:
            continue
        # In this order: what has this start now had the pid when it was opened.
        if procfs.start_time(pid) == read.starts.get(name_of(member), -1) and not process.is_over(pidfd):
            alive[member] = Alive(pid, pidfd)
        else:
            os.close(pidfd)
    return alive


def _gather(
    former: Former,
    bond: Bond,
    calls: Calls,
    heard: list[Orphan],
    strangers: list[Orphan],
    estate: Estate,
    say: Callable[[str], None],
) -> None:
    """Fills `heard`, and `strangers` with who called and is not known; what they share goes to `estate`.

    Who dies meanwhile stays among the living: its end is told like any other, when the daemon goes on.
    """
    alive = former.alive
    began = time.monotonic()
    told = False
    while True:
        came = {orphan.id for orphan in heard}
        missing = [member for member, one in alive.items() if member not in came and not process.is_over(one.pidfd)]
        lacking = _lacking(former, estate)
        passed = time.monotonic() - began
        if not missing or (passed > CALLS and not lacking):
            return
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
            bond.take(orphan.lock)
            known = alive.get(orphan.id)
            orphan = estate.take(orphan)  # noqa: PLW2901 - what is left of it
            if known is not None and known.pid == orphan.pid and orphan.id not in came:
                heard.append(orphan)
            elif len(strangers) < MOST:
                strangers.append(orphan)
            else:  # it calls again
                orphan.close()


def _lacking(former: Former, estate: Estate) -> list[str]:
    """What nobody has brought; resting listeners are brought by who is kept for a rollback, or not at all."""
    listening = former.found.shell.listening
    resting = {f"listener {number}" for number, one in enumerate(listening.sockets) if one.resting}
    marks = former.will.marks()
    return [name for name, mark in marks.items() if mark not in estate.brought and name not in resting]


def _make(former: Former, heard: list[Orphan], strangers: list[Orphan], estate: Estate) -> Adoption:
    found, alive, known = former.found, former.alive, former.found.shell.family
    kept = Kept()
    listening = _give_shared(found.shell, former.will, estate, kept)
    events = [_resumed(heard, strangers), *_deaths(known, alive, _told_ends(heard), kept.find(SCOREBOARD))]
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
            if orphan.lifeline >= 0:
                kept.give(f"lifeline {member}", orphan.lifeline)
    left = known._replace(
        zygotes=tuple(one for one in known.zygotes if one.id in alive),
        workers=tuple(_as_it_is(one, came) for one in known.workers if one.id in alive),
    )
    strays = [stray for orphan in strangers for stray in send_away(orphan)]
    ids = set(alive)
    strays += [stray for orphan in heard for stray in unknown_children(orphan, ids)]
    shell = found.shell._replace(listening=listening, family=left)
    return Adoption(Handover(found.house, shell), kept, events, strays, former.will.sums)


def _as_it_is(one: employed.Carried, came: dict[Member, Orphan]) -> employed.Carried:
    """Who calls has been ready, which the state may not know: it is a moment older than the death."""
    return one._replace(ready=True) if one.id in came else one


def _ended_pipe() -> int:
    read, write = os.pipe()
    os.close(write)
    return read


def _give_shared(shell: Shell, read: Will, estate: Estate, kept: Kept) -> Listening:
    """The scoreboard and the listeners; what is known of those that were brought."""
    marks, brought = read.marks(), estate.brought
    kept.give(SCOREBOARD, brought.pop(marks[SCOREBOARD]))
    found: list[Carried] = []
    for number, one in enumerate(shell.listening.sockets):
        mark = marks.get(f"listener {number}")
        if mark in brought:
            kept.give(f"listener {len(found)}", brought.pop(mark))
            found.append(one)
    estate.close()
    return shell.listening._replace(sockets=tuple(found))


def _told_ends(heard: list[Orphan]) -> dict[WorkerId, Ended]:
    """How workers ended while there was no daemon, by their zygotes."""
    return {
        WorkerId(orphan.here.pool, orphan.here.generation, serial): ended
        for orphan in heard
        for serial, ended in orphan.ends()
    }


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
