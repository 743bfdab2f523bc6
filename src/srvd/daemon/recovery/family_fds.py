"""The descriptors of an adopted family: from the members that brought them into the table of the next daemon.

A member that has not called has placeholders there until it does. Chooses no member: `adopt.py` does.
"""

from __future__ import annotations

import os

from srvd.daemon.children.commons import BELL
from srvd.daemon.children.stack_file import make_file
from srvd.daemon.fd_table import FdTable
from srvd.daemon.listeners import ListenerState
from srvd.daemon.recovery.envelope import name_of
from srvd.daemon.recovery.gathering import Gathering
from srvd.daemon.state.model import Shell
from srvd.ids import GenerationId
from srvd.linux import fds
from srvd.linux.processes import process

__all__ = ["give_own", "give_shared"]


def give_shared(gathering: Gathering, table: FdTable) -> Shell:
    """Move bell, listeners and scoreboards to `table`. Returns the shell with only the listeners that were brought, and
    the scoreboards of living generations.

    A generation of which only busy workers live brings its scoreboard later; the others do not wait for it.
    """
    former, shared = gathering.former, gathering.shared
    shell = former.found.shell
    living = {GenerationId(*member[:2]) for member in (*former.alive, *(one.id for one in shell.family.workers))}
    marks, brought = former.envelope.marks(), shared.brought
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


def give_own(gathering: Gathering, table: FdTable) -> None:
    """Move what each living member has for itself to `table`."""
    came = {orphan.id: orphan for orphan in gathering.heard}
    for member, one in gathering.former.alive.items():
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
