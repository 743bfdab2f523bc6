"""What a daemon is made of, before it is one: `start.py` makes them, or finds them after a daemon that died.

Does nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from srvd.core.supervisor import Supervisor
from srvd.daemon.bond import Bond
from srvd.daemon.keepsake import Keepsake
from srvd.daemon.listeners import Listeners
from srvd.daemon.program import Program
from srvd.linux.scoreboard import Board
from srvd.linux.systemd import Unit
from srvd.log import Log

__all__ = ["Parts"]


class Parts(NamedTuple):
    """What is new at a start, and handed over at an upgrade."""

    board: Board
    listeners: Listeners
    core: Supervisor
    program: Program
    unit: Unit
    keepsake: Keepsake
    bond: Bond
    log: Log
