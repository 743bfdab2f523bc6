"""Finds the family of a daemon that died at the next start: the members that can be adopted, and what they bring.

Gives no order before all is known. By `entry/succeed.py` the new daemon goes on with the result. A living member that
has not called yet is identified by pid and start time and adopted all the same: it is busy, and calls when it can.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from srvd.config.settings import Config
from srvd.core.events import Event, Resumed, WorkerGone, ZygoteGone
from srvd.core.model import Death
from srvd.daemon.children import worker as employed
from srvd.daemon.children.commons import BELL, SPARE_SLOTS
from srvd.daemon.children.performer import Family
from srvd.daemon.children.stack_file import make_file
from srvd.daemon.family.callers import Calls, Orphan, SharedFds
from srvd.daemon.fd_table import FdTable
from srvd.daemon.listeners import ListenerState
from srvd.daemon.recovery import envelope
from srvd.daemon.recovery.envelope import Envelope, Member, boot_id, mark_of, name_of
from srvd.daemon.recovery.rejects import CALLS, LATEST, Reject, send_away, unknown_children
from srvd.daemon.state import handover
from srvd.daemon.state.model import Handover, Shell
from srvd.errors import SystemRefused, Unsupported
from srvd.ids import GenerationId, WorkerId
from srvd.linux import fds
from srvd.linux.processes import process, procfs
from srvd.linux.processes.process import Ended
from srvd.linux.scoreboard import Board, LaneFacts, size_of
from srvd.record import Record

__all__ = ["Adoption", "Former", "find", "look"]


MOST = 1024
"""Limit of unknown callers that are kept until the search is over: a malicious worker could call without end."""


class Alive(Record):
    pid: int
    pidfd: int


class Former(Record):
    """The state of a daemon that died, and the living members of its family."""

    envelope: Envelope
    found: Handover
    alive: dict[Member, Alive]

    def close(self) -> None:
        for one in self.alive.values():
            os.close(one.pidfd)


class Adoption(Record):
    """What the next daemon goes on with."""

    found: Handover
    table: FdTable
    events: list[Event]  # the first ones, in order
    rejects: list[Reject]  # processes that were sent away
    sums: dict[str, int]  # checksums of the certificates in force, by listener

    def with_room(self, config: Config, say: Callable[[str], None]) -> Config:
        """Return the configuration with the `max_workers` that can be in force: the existing scoreboards cannot grow.

        Sets the limit in the core's state, too. say: called with each warning.
        """
        boards = self.found.shell.family.commons
        most = min(((one.slots - SPARE_SLOTS) // 2 for one in boards), default=config.daemon.max_workers)
        wanted, house = config.daemon.max_workers, self.found.house
        limit = house.limit = min(wanted, most)
        if limit < wanted:
            say(
                f"daemon.max_workers: {limit} stays in force, {wanted} was not taken over: the scoreboards of the "
                "daemon that died have no more room, and its workers use them; stop srvd and start it to change that"
            )
        wished = sum(pool.desired for pool in house.pools.values() if not pool.removed)
        if wished > limit:
            say(
                f"daemon.max_workers is {limit}, and {wished} workers run by orders that were given before; they stay, "
                "and a reload is refused, until `srvctl scale` has brought that down"
            )
        return config._replace(daemon=config.daemon._replace(max_workers=limit))


def look(data: bytes) -> Former | None:
    """Read the state and find the living members of its family; None: the state is of another boot, no member lives.

    Must run before members can call: a zygote's call then reports every worker that has ended before. Raises
    `Unsupported`: the state cannot be continued; `OSError`: no descriptor is left.
    """
    read = envelope.unpack(data)
    if read.boot != boot_id():
        return None
    found = handover.read(read.state)
    if not found.house.started or found.house.stop is not None:
        raise Unsupported("the former daemon died while it was starting or stopping")
    return Former(read, found, _living(read, found.shell.family))


def find(former: Former, calls: Calls, say: Callable[[str], None]) -> Adoption | None:
    """Wait for calls of the members in the state; None: no member lives. `say`: called when the wait becomes long.

    Raises `SystemRefused`: members live, but do not bring what is needed. In this case, and after None, no process has
    received an order, and all descriptors are closed.
    """
    heard: list[Orphan] = []
    strangers: list[Orphan] = []
    shared = SharedFds()
    try:
        if former.alive:
            _gather(former, calls, heard, strangers, shared, say)
        if heard:
            return _make(former, heard, strangers, shared)
    except BaseException:
        _close(former, heard, strangers, shared)
        raise
    _close(former, heard, strangers, shared)
    return None


def _close(former: Former, heard: list[Orphan], strangers: list[Orphan], shared: SharedFds) -> None:
    for orphan in (*heard, *strangers):
        orphan.close()
    shared.close()
    former.close()


def _living(read: Envelope, known: Family) -> dict[Member, Alive]:
    """Return the living members of the family, by pid and start time, without zygotes that were still loading: these
    die with their daemon.
    """
    pids: dict[Member, int] = {one.id: one.pid for one in known.workers if one.pid}
    pids |= {one.id: one.pid for one in known.zygotes if one.forks}
    alive: dict[Member, Alive] = {}
    for member, pid in pids.items():
        try:
            pidfd = process.open_pidfd(pid)
        except ProcessLookupError:
            continue
        # In this order: a process that has this start time now had the pid when the pidfd was opened.
        if procfs.start_time(pid) == read.starts.get(name_of(member), -1) and not process.is_over(pidfd):
            alive[member] = Alive(pid, pidfd)
        else:
            os.close(pidfd)
    return alive


def _gather(
    former: Former,
    calls: Calls,
    heard: list[Orphan],
    strangers: list[Orphan],
    shared: SharedFds,
    say: Callable[[str], None],
) -> None:
    """Collect known callers in `heard`, unknown ones in `strangers`, and shared descriptors in `shared`.

    A member that dies meanwhile stays in `former.alive`: the new daemon handles its end like any other.
    """
    alive = former.alive
    began = time.monotonic()
    told = False
    while True:
        came = {orphan.id for orphan in heard}
        missing = [member for member, one in alive.items() if member not in came and not process.is_over(one.pidfd)]
        lacking = _lacking(former, shared)
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
            known = alive.get(orphan.id)
            if known is not None and known.pid == orphan.pid and orphan.id not in came and orphan.stderr >= 0:
                heard.append(_keep(former, shared, orphan))
            elif len(strangers) < MOST:
                strangers.append(orphan)
            else:  # this process calls again
                orphan.close()


def _keep(former: Former, shared: SharedFds, orphan: Orphan) -> Orphan:
    """Move the shared descriptors of a known member to `shared`; return the member without them.

    Descriptors that do not match the state are discarded: a worker may pass anything.
    """
    boards = {(fds.MEMFD, one.inode): one for one in former.found.shell.family.commons}
    marks = {*former.envelope.marks().values(), *boards}
    foreign = [fd for fd in (orphan.bell, orphan.board, *orphan.listeners) if mark_of(fd) not in marks]
    form = boards.get(mark_of(orphan.board))
    if form is not None and not fds.is_sealed(orphan.board, size_of(form.slots, form.lanes)):
        foreign.append(orphan.board)
    fds.discard(foreign)
    return shared.take(orphan.without(foreign))


def _lacking(former: Former, shared: SharedFds) -> list[str]:
    """Return the names of shared descriptors that no member has brought, without resting listeners: only processes kept
    for a rollback have these.
    """
    listening = former.found.shell.listening
    resting = {f"listener {number}" for number, one in enumerate(listening.sockets) if one.resting}
    marks = former.envelope.marks()
    return [name for name, mark in marks.items() if mark not in shared.brought and name not in resting]


def _make(former: Former, heard: list[Orphan], strangers: list[Orphan], shared: SharedFds) -> Adoption:
    found, alive, known = former.found, former.alive, former.found.shell.family
    table = FdTable()
    needed = {GenerationId(*member[:2]) for member in (*alive, *(one.id for one in known.workers))}
    shell = _give_shared(found.shell, former.envelope, needed, shared, table)
    events = [_resumed(heard, strangers), *_deaths(found.shell, table, alive, _told_ends(heard))]
    came = {orphan.id: orphan for orphan in heard}
    for member, one in alive.items():
        name, orphan = name_of(member), came.get(member)
        table.give(f"{name} pidfd", one.pidfd)
        if orphan is None:  # placeholders until the process calls and brings its own
            table.give(f"{name} stderr", process.over())
            table.give(f"{name} stacks", make_file())
        else:
            os.close(orphan.pidfd)
            table.give(f"{name} link", orphan.link.detach())
            table.give(f"{name} stderr", orphan.stderr)
            table.give(f"{name} stacks", orphan.stacks)
            if orphan.lifeline >= 0:
                table.give(f"lifeline {member}", orphan.lifeline)
    left = shell.family._replace(
        zygotes=tuple(one for one in known.zygotes if one.id in alive),
        workers=tuple(_as_it_is(one, came) for one in known.workers if one.id in alive),
    )
    rejects = [reject for orphan in strangers for reject in send_away(orphan)]
    ids = set(alive)
    rejects += [reject for orphan in heard for reject in unknown_children(orphan, ids)]
    return Adoption(Handover(found.house, shell._replace(family=left)), table, events, rejects, former.envelope.sums)


def _as_it_is(one: employed.WorkerState, came: dict[Member, Orphan]) -> employed.WorkerState:
    """Return the worker's state, with `ready` set if the worker called: the state is older than the daemon's death, and
    only workers that have been ready call.
    """
    return one._replace(ready=True) if one.id in came else one


def _give_shared(shell: Shell, read: Envelope, living: set[GenerationId], shared: SharedFds, table: FdTable) -> Shell:
    """Move bell, listeners and scoreboards to `table`. Returns the shell with only the listeners that were brought, and
    the scoreboards of living generations.

    A generation of which only busy workers live brings its scoreboard later; the others do not wait for it.
    """
    marks, brought = read.marks(), shared.brought
    table.give(BELL, brought.pop(marks[BELL]))
    boards = tuple(one for one in shell.family.commons if one.generation in living)
    for board in boards:
        if (fds.MEMFD, board.inode) in brought:
            table.give(board.name, brought.pop((fds.MEMFD, board.inode)))
    found: list[ListenerState] = []
    for number, one in enumerate(shell.listening.sockets):
        mark = marks.get(f"listener {number}")
        if mark in brought:
            table.give(f"listener {len(found)}", brought.pop(mark))
            found.append(one)
    shared.close()
    listening = shell.listening._replace(sockets=tuple(found))
    return shell._replace(listening=listening, family=shell.family._replace(commons=boards))


def _told_ends(heard: list[Orphan]) -> dict[WorkerId, Ended]:
    """Return how workers ended while there was no daemon, as reported by their zygotes."""
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


def _deaths(shell: Shell, table: FdTable, alive: dict[Member, Alive], ended: dict[WorkerId, Ended]) -> list[Event]:
    """Return the events for zygotes and workers that are in the state and are gone."""
    known = shell.family
    lost: list[Event] = [
        ZygoteGone(one.id, "it ended with its daemon, or after it") for one in known.zygotes if one.id not in alive
    ]
    forms = {one.generation: one for one in known.commons}
    for one in known.workers:
        if one.pid and one.id not in alive:
            form, facts = forms.get(GenerationId(*one.id[:2])), LaneFacts()
            if form is not None and (fd := table.find(form.name)) >= 0:
                facts = Board(fd, form.slots, form.lanes).read(one.slot)
            lost.append(WorkerGone(one.id, _death(facts, ended.get(one.id, Ended()))))
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
