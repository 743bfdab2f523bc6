"""Order to fork one worker: makes its descriptors, sends one end of each to the zygote and keeps the other.

Forks nothing: the zygote does. `ordered.py` keeps what was made, until then.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from srvd.daemon.children.commons import Common
from srvd.daemon.children.output import Output
from srvd.daemon.children.process import Process
from srvd.daemon.children.stack_file import make_file
from srvd.ids import WorkerId
from srvd.linux import fds
from srvd.linux.processes import deadman
from srvd.record import Record
from srvd.wire import links

__all__ = ["Expected", "order_fork"]

_STEPS = ("link", "", "stderr", "", "stderr", "file for stacks", "lifeline", "slot")
"""Names of the descriptors, in the order in which they are made; names the one that failed."""


class Expected(Record):
    """What the daemon has of a worker without a pid: the slot, and its ends of the worker's descriptors."""

    slot: int
    link: socket.socket
    output: Output
    stacks: int  # descriptor of the file for its stacks


def order_fork(worker: WorkerId, common: Common, zygote: Process, line: Callable[[str], None]) -> Expected | str:
    """Tell the zygote to fork a worker into a free slot. Returns the daemon's ends, or the reason of the failure.

    The worker has an end of its stderr pipe to read, too, for the next daemon. Each side has an open file of its own,
    so that flags that the worker sets do not change the daemon's.

    line: called with each line that the worker writes to stderr.
    """
    slot = common.free[-1]
    made: list[int] = []
    try:
        made += [end.detach() for end in fds.link_pair()]
        made += os.pipe()
        made.append(os.open(f"/proc/self/fd/{made[2]}", os.O_RDONLY | os.O_CLOEXEC))
        made.append(make_file())
        made.append(deadman.end_of(common.hold))
        common.board.clear(slot)
    except OSError as exc:
        fds.close_all(made)
        return f"make its {_STEPS[len(made)]}: {exc.strerror}"
    link, theirs, read, write, their_read, stacks, end = made
    ours = socket.socket(fileno=link)
    fds.refuse_rights(ours)
    try:
        sent = zygote.say(links.Fork(worker.serial, slot), theirs, write, stacks, their_read, end)
        refusal = "" if sent else "its zygote does not listen"
    except OSError as exc:  # ETOOMANYREFS: too many descriptors are on their way
        refusal = f"pass its descriptors: {exc.strerror}"
    fds.close_all([theirs, write, their_read, end])
    if refusal:
        ours.close()
        fds.close_all([read, stacks])
        return refusal
    return Expected(slot, ours, Output(read, line), stacks)
