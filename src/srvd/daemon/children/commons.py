"""What the zygote and the workers of one generation share: scoreboard and lifeline.

Reads no scoreboard and starts no process. Both exist as long as the generation has a process.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from srvd.daemon.fd_table import FdTable
from srvd.ids import GenerationId
from srvd.linux import fds
from srvd.linux.processes import deadman
from srvd.linux.scoreboard import Bell, Board, size_of
from srvd.record import Record

__all__ = ["BELL", "SCOREBOARD", "SPARE_SLOTS", "Common", "Commons", "CommonsState", "slots_for"]

BELL = "bell"
"""Name of the bell in an `FdTable`."""

SCOREBOARD = "scoreboard"
"""Prefix of the names of scoreboards in an `FdTable`."""

SPARE_SLOTS = 64
"""Slots beyond twice `max_workers`: a reload doubles the workers, and draining workers keep their slots."""


def slots_for(max_workers: int) -> int:
    """The number of slots of a scoreboard."""
    return 2 * max_workers + SPARE_SLOTS


class CommonsState(Record):
    """What one generation shares, as it is handed over. The scoreboard itself does not tell its slots and lanes."""

    generation: GenerationId
    slots: int
    lanes: int
    inode: int  # of the workers' scoreboard

    @property
    def name(self) -> str:
        return f"{SCOREBOARD} {self.generation}"


class Common:
    """What one generation shares. Owns both descriptors."""

    __slots__ = ("board", "free", "hold", "inode")

    def __init__(self, board: Board, hold: int, inode: int) -> None:
        """inode: of the workers' scoreboard. `board` may be an empty substitute for it until one of the workers calls.

        hold: the lifeline's end to hold; -1 if a zygote has it that has not called yet.
        """
        self.board = board
        self.inode = inode
        self.hold = hold
        self.free = list(range(board.slots - 1, -1, -1))  # slots

    def bring(self, fd: int) -> bool:
        """Replace a substitute by the scoreboard that a worker has brought.

        Returns False, and leaves `fd` to the caller, if there is no substitute or the scoreboard is another one.
        """
        if fds.inode(self.board.fd) == self.inode or fds.inode(fd) != self.inode:
            return False
        size = size_of(self.board.slots, self.board.lanes)
        if not fds.is_sealed(fd, size):
            return False
        former, self.board = self.board, Board(fd, self.board.slots, self.board.lanes)
        former.close()
        return True

    def close(self) -> None:
        self.board.close()
        fds.close_all([self.hold] if self.hold >= 0 else [])


class Commons:
    """What the generations share, by generation, and the bell of all, which only the daemon can write."""

    def __init__(self, bell: Bell, slots: int) -> None:
        """slots: number of slots of each new scoreboard."""
        self.bell = bell
        self._slots = slots
        self._of: dict[GenerationId, Common] = {}

    @classmethod
    def made(cls, max_workers: int) -> Commons:
        """Make one with a new bell. Raises `SystemRefused`."""
        return cls(Bell.create(), slots_for(max_workers))

    @classmethod
    def taken(cls, fd_table: FdTable, max_workers: int, *, brought: bool = False) -> Commons:
        """Make one with the bell of a former program. Raises `Unsupported`, `OSError`.

        brought: a worker has brought the bell; its descriptor cannot write.
        """
        fd = fd_table.take(BELL)
        return cls(Bell.adopt(fd) if brought else Bell(fd), slots_for(max_workers))

    def open(self, generation: GenerationId, lanes: int) -> Common:
        """Return what the generation shares; make it if there is none. Raises `OSError`."""
        found = self._of.get(generation)
        if found is None:
            board = Board.create(self._slots, lanes)
            try:
                found = self._of[generation] = Common(board, deadman.make(), fds.inode(board.fd))
            except OSError:
                board.close()
                raise
        elif found.hold < 0:  # the zygote that had the lifeline's end is gone
            found.hold = deadman.make()
        return found

    def of(self, generation: GenerationId) -> Common:
        """Return what the generation shares; it has a zygote or a worker."""
        return self._of[generation]

    def hold(self, generation: GenerationId, hold: int) -> None:
        """Take the end of a lifeline that a zygote has brought. The descriptor belongs to this object from now on."""
        common = self._of[generation]
        fds.close_all([common.hold] if common.hold >= 0 else [])
        common.hold = hold

    def keep(self, living: Set[GenerationId]) -> None:
        """Close what all other generations shared."""
        for generation in self._of.keys() - living:
            self._of.pop(generation).close()

    def save(self, fd_table: FdTable) -> tuple[CommonsState, ...]:
        """The state for the next program; the descriptors go to `fd_table`."""
        fd_table.give(BELL, self.bell.fd)
        states = []
        for generation, common in self._of.items():
            one = CommonsState(generation, common.board.slots, common.board.lanes, common.inode)
            fd_table.give(one.name, common.board.fd)
            if common.hold >= 0:
                fd_table.give(f"lifeline {generation}", common.hold)
            states.append(one)
        return tuple(states)

    def restore(self, states: Sequence[CommonsState], fd_table: FdTable) -> None:
        """Go on with what `save` described. A scoreboard that is missing yet gets a substitute. Raises `OSError`."""
        for one in states:
            fd = fd_table.find(one.name)
            board = Board.create(one.slots, one.lanes) if fd < 0 else Board(fd, one.slots, one.lanes)
            self._of[one.generation] = Common(board, fd_table.find(f"lifeline {one.generation}"), one.inode)

    def close(self) -> None:
        self.keep(set())
        self.bell.close()
