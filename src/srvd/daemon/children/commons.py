"""What the zygote and the workers of one generation have in common, and no other one has: scoreboard and lifeline.

Reads no scoreboard and starts nobody. Both are there as long as anybody of the generation is.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from srvd.daemon.fd_table import FdTable
from srvd.ids import GenerationId
from srvd.linux import deadman, fds
from srvd.linux.scoreboard import Bell, Board, size_of
from srvd.record import Record

__all__ = ["BELL", "SCOREBOARD", "SPARE_SLOTS", "Common", "Commons", "CommonsState", "slots_for"]

BELL = "bell"
"""What the bell is called that is handed over."""

SCOREBOARD = "scoreboard"
"""Begins the names of scoreboards that are handed over."""

SPARE_SLOTS = 64
"""Slots beyond twice the most workers: a reload doubles the workers, and leaving ones keep theirs for a while."""


def slots_for(max_workers: int) -> int:
    """Of a scoreboard."""
    return 2 * max_workers + SPARE_SLOTS


class CommonsState(Record):
    """One generation's, as it is handed over: the form of its scoreboard is known from here, not from itself."""

    generation: GenerationId
    slots: int
    lanes: int
    inode: int  # of the scoreboard that the workers have

    @property
    def name(self) -> str:
        return f"{SCOREBOARD} {self.generation}"


class Common:
    """Of one generation. Owns both descriptors."""

    __slots__ = ("board", "free", "hold", "inode")

    def __init__(self, board: Board, hold: int, inode: int) -> None:
        """`inode`: of the scoreboard that its workers have, for which `board` may stand in until one of them calls."""
        self.board = board
        self.inode = inode
        self.hold = hold  # -1: it came with a zygote, which has not called yet
        self.free = list(range(board.slots - 1, -1, -1))  # slots

    def bring(self, fd: int) -> bool:
        """A worker has brought its scoreboard; False: it is no other one than there is, or not the right one."""
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
    """Of all generations, and the bell, which is one for all: only the daemon can write it."""

    def __init__(self, bell: Bell, slots: int) -> None:
        """`slots` of each new scoreboard."""
        self.bell = bell
        self._slots = slots
        self._of: dict[GenerationId, Common] = {}

    @classmethod
    def made(cls, max_workers: int) -> Commons:
        """With a new bell. Raises `SystemRefused`."""
        return cls(Bell.create(), slots_for(max_workers))

    @classmethod
    def taken(cls, kept: FdTable, max_workers: int, *, brought: bool = False) -> Commons:
        """With the bell of a former program; `brought`: by a worker of it, which could not write it. Raises
        `Unsupported`, `OSError`.
        """
        fd = kept.take(BELL)
        return cls(Bell.adopt(fd) if brought else Bell(fd), slots_for(max_workers))

    def open(self, generation: GenerationId, lanes: int) -> Common:
        """What is there, or new. Raises `OSError`."""
        found = self._of.get(generation)
        if found is None:
            board = Board.create(self._slots, lanes)
            try:
                found = self._of[generation] = Common(board, deadman.make(), fds.inode(board.fd))
            except OSError:
                board.close()
                raise
        elif found.hold < 0:  # the zygote that had it is gone
            found.hold = deadman.make()
        return found

    def of(self, generation: GenerationId) -> Common:
        """Of a generation that has a zygote or a worker."""
        return self._of[generation]

    def hold(self, generation: GenerationId, hold: int) -> None:
        """Keep the end of a lifeline that a zygote has brought, which is ours from now on."""
        common = self._of[generation]
        fds.close_all([common.hold] if common.hold >= 0 else [])
        common.hold = hold

    def keep(self, living: Set[GenerationId]) -> None:
        """Close those of all others."""
        for generation in self._of.keys() - living:
            self._of.pop(generation).close()

    def carry(self, kept: FdTable) -> tuple[CommonsState, ...]:
        """What another program needs to go on with them."""
        kept.give(BELL, self.bell.fd)
        carried = []
        for generation, common in self._of.items():
            one = CommonsState(generation, common.board.slots, common.board.lanes, common.inode)
            kept.give(one.name, common.board.fd)
            if common.hold >= 0:
                kept.give(f"lifeline {generation}", common.hold)
            carried.append(one)
        return tuple(carried)

    def resume(self, carried: Sequence[CommonsState], kept: FdTable) -> None:
        """Go on with what `carry` told. A scoreboard that nobody has brought yet gets a stand-in. Raises `OSError`."""
        for one in carried:
            fd = kept.find(one.name)
            board = Board.create(one.slots, one.lanes) if fd < 0 else Board(fd, one.slots, one.lanes)
            self._of[one.generation] = Common(board, kept.find(f"lifeline {one.generation}"), one.inode)

    def close(self) -> None:
        self.keep(set())
        self.bell.close()
