"""The scoreboard: one shared page table on which every thread of every worker writes what it is doing.

Not a channel: nobody is told when something changes; the daemon reads it when it needs to know.

One memfd. A header (one page and more: a flag, the geometry, one byte a slot), then a slot for each worker; a slot is
72 lanes, one for each thread, and each lane has one writer, so that no store ever needs a lock. Pages that nobody
touched cost nothing (the file is sparse). Readers trust nothing they read: a worker that goes bad can write anything
here, but it cannot shrink the file (sealed) and so cannot crash its readers with SIGBUS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterable
from struct import Struct

from srvd.errors import SystemRefused
from srvd.record import Record

__all__ = ["LANES", "Board", "Lane", "LaneFacts", "Request"]

LANES = 72
"""Lanes a slot: one for each of the 64 threads that a worker has at most, one for its loop; a whole number of pages."""

LATENCY_BUCKETS = 32
"""Bucket n counts requests of 2^(n-1) to 2^n µs; the last one takes all that were longer (18 minutes and up)."""

_CLASSES = 6  # by_class: index 0 takes statuses outside 100..599
_MAGIC = 0x73727664  # "srvd"
_GEOMETRY = Struct("@II")  # magic, slots; at byte 8 of the header
_GEOMETRY_AT = 8
_USED_AT = 64  # byte _USED_AT + slot: how many of its lanes were handed out since it was cleared

# A lane is 512 bytes: counters of 8 bytes (by_class, sent, connections, latency), then the request under way: its line,
# when the application gave something for it last, and when it began.
_COUNTERS = _CLASSES + 2 + LATENCY_BUCKETS
_SENT = _CLASSES
_CONNECTIONS = _CLASSES + 1
_LATENCY = _CLASSES + 2
_LINE_AT = _COUNTERS * 8
_LINE = 176
_LANE = 512
_NOW = Struct(f"@{_LINE}sdd")  # line, gave, began
_FACTS = Struct(f"@{_COUNTERS}Q{_LINE}sdd")
_BY_CLASS = Struct(f"@{_CLASSES}Q")
_DOUBLE = Struct("@d")
_BEGAN = (_LANE - 8) // 8  # index of `began` among the lane's doubles
_GAVE = _BEGAN - 1
_SLOT = max(LANES * _LANE, mmap.PAGESIZE)
_MOST = 2**63 - 1  # of any number that leaves here: what was scribbled must fit into messages, and its sums, too
_TRIES = 3

assert _FACTS.size == _LANE


class LaneFacts(Record):
    """What a worker's lanes say together, or one lane alone. Seconds are monotonic, sizes bytes."""

    busy: int = 0  # lanes in a request
    began: float = 0.0  # when the oldest request under way began; 0.0: idle
    line: str = ""  # its request line
    gave: float = 0.0  # of those under way, the oldest time at which one began or was given something of its response
    quiet: str = ""  # the request line of that one
    requests: int = 0  # answered
    by_class: tuple[int, ...] = (0,) * _CLASSES  # answered, by status // 100; index 0: no proper status
    sent: int = 0
    connections: int = 0  # open now
    latency: tuple[int, ...] = (0,) * LATENCY_BUCKETS


class Request(Record):
    """A request under way."""

    lane: int
    began: float  # monotonic
    line: str


class Lane:
    """One thread's row. Its writer is the only one; `begin` and `end` are on the path of every request."""

    __slots__ = ("_at", "_counts", "_memory", "_times")

    def __init__(self, memory: memoryview, at: int) -> None:
        row = memory[at : at + _LANE]
        self._memory = memory
        self._at = at + _LINE_AT
        self._counts = row.cast("Q")
        self._times = row.cast("d")

    def begin(self, now: float, line: bytes) -> bool:
        """A request began; `line` is its request line, cut to 176 bytes.

        False: the daemon does not look at the page by itself at present; its doorbell has to be rung.
        """
        # One pack writes them in this order; in between `began` reads 0.0, which is idle.
        memory = self._memory
        _NOW.pack_into(memory, self._at, line, now, now)
        return memory[0] != 0

    @property
    def began(self) -> float:
        """When its request began; 0.0: it is in none."""
        return self._times[_BEGAN]

    @property
    def last_gave(self) -> float:
        """When the application gave something for its request, or was called for it."""
        return self._times[_GAVE]

    def gave(self, now: float) -> None:
        """The application has given a part of the response."""
        self._times[_GAVE] = now

    def end(self, now: float, status: int, sent: int, began: float) -> None:
        """The request that began at `began` was answered with `status` (0: it was not) and `sent` bytes in all."""
        counts = self._counts
        kind = status // 100
        counts[kind if 0 < kind < _CLASSES else 0] += 1
        counts[_SENT] += sent
        bucket = int((now - began) * 1e6).bit_length()
        counts[_LATENCY + (bucket if bucket < LATENCY_BUCKETS else LATENCY_BUCKETS - 1)] += 1
        self._times[_BEGAN] = 0.0

    def connections(self, count: int) -> None:
        """How many connections are open now."""
        self._counts[_CONNECTIONS] = count

    def release(self) -> None:
        """Let go of the memory; the lane is of no use after it."""
        self._counts.release()
        self._times.release()


class Board:
    """The whole page table, mapped into this process; a worker inherits its zygote's mapping."""

    __slots__ = ("_header", "_lanes", "_map", "_memory", "fd", "slots")

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self.slots = slots
        self._header = _header_size(slots)
        self._map = mmap.mmap(fd, self._header + slots * _SLOT)
        self._memory = memoryview(self._map)
        self._lanes: list[Lane] = []

    @classmethod
    def create(cls, slots: int) -> Board:
        """A new board of so many slots. Raises `SystemRefused` where the kernel gives no memfd."""
        try:
            fd = os.memfd_create("srvd-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, _header_size(slots) + slots * _SLOT)
            # memfd_create(2), "File sealing": without it a worker could shrink the file under the daemon's feet.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            board = cls(fd, slots)
        except OSError as exc:
            raise SystemRefused(f"create the scoreboard of {slots} slots: {exc.strerror}; srvd cannot start") from exc
        _GEOMETRY.pack_into(board._map, _GEOMETRY_AT, _MAGIC, slots)
        return board

    @classmethod
    def attach(cls, fd: int) -> Board:
        """The board behind a descriptor, which it owns from now on. Raises `SystemRefused` if it is none."""
        head = os.pread(fd, _GEOMETRY.size, _GEOMETRY_AT)
        magic, slots = _GEOMETRY.unpack(head) if len(head) == _GEOMETRY.size else (0, 0)
        if magic != _MAGIC or os.fstat(fd).st_size != _header_size(slots) + slots * _SLOT:
            raise SystemRefused(f"attach the scoreboard: descriptor {fd} is none; the process cannot go on")
        return cls(fd, slots)

    @property
    def watching(self) -> bool:
        """Whether the daemon reads the board by itself at present."""
        return self._memory[0] != 0

    @watching.setter
    def watching(self, on: bool) -> None:
        self._memory[0] = on

    def lane(self, slot: int, thread: int = 0) -> Lane:
        """The row of one thread (0..71) of the worker with this slot; there must be one writer for each."""
        self._check(slot)
        if not 0 <= thread < LANES:
            raise ValueError(f"lane {thread} of slot {slot}: a slot has {LANES} lanes")
        used = _USED_AT + slot
        self._memory[used] = max(self._memory[used], thread + 1)
        lane = Lane(self._memory, self._lane_at(slot, thread))
        self._lanes.append(lane)
        return lane

    def read(self, slot: int) -> LaneFacts:
        """What the worker with this slot is doing: sums over its lanes, and the oldest request under way."""
        self._check(slot)
        # Only lanes that were handed out: reading a hole of the file would make a page of it.
        used = min(self._memory[_USED_AT + slot], LANES)
        if used == 1:
            return self._lane_facts(slot, 0)
        return _merge([self._lane_facts(slot, thread) for thread in range(used)])

    def requests(self, slot: int) -> list[Request]:
        """Those under way, the oldest first."""
        self._check(slot)
        used = min(self._memory[_USED_AT + slot], LANES)
        lanes = [(thread, self._lane_facts(slot, thread)) for thread in range(used)]
        return sorted(
            (Request(thread, lane.began, lane.line) for thread, lane in lanes if lane.busy), key=lambda r: r.began
        )

    def tally(self, slot: int) -> tuple[int, int]:
        """Requests answered, and lanes in a request: all that a list of many workers shows, at a fifth of the cost."""
        self._check(slot)
        requests = busy = 0
        now = time.monotonic()
        for thread in range(min(self._memory[_USED_AT + slot], LANES)):
            at = self._lane_at(slot, thread)
            requests += sum(_BY_CLASS.unpack_from(self._memory, at))
            busy += 0.0 < self._began(at) <= now
        return min(requests, _MOST), busy

    def clear(self, slot: int) -> None:
        """Forget what the slot's former worker did, and give its pages back."""
        self._check(slot)
        self._memory[_USED_AT + slot] = 0
        self._map.madvise(mmap.MADV_REMOVE, self._lane_at(slot, 0), _SLOT)

    def close(self) -> None:
        """Unmap and close; every lane of this object ends with it."""
        for lane in self._lanes:
            lane.release()
        self._memory.release()
        self._map.close()
        os.close(self.fd)

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot {slot}: the scoreboard has {self.slots} slots")

    def _lane_at(self, slot: int, thread: int) -> int:
        return self._header + slot * _SLOT + thread * _LANE

    def _lane_facts(self, slot: int, thread: int) -> LaneFacts:
        at = self._lane_at(slot, thread)
        for _ in range(_TRIES):
            *counters, line, gave, began = _FACTS.unpack_from(self._memory, at)
            # The line belongs to `began` if no other request took the lane while it was read.
            if self._began(at) == began:
                break
        else:
            line = b""
        now = time.monotonic()
        busy = 0.0 < began <= now  # neither NaN nor nonsense
        gave = gave if began <= gave <= now else began
        counters = [min(counter, _MOST) for counter in counters]
        by_class = tuple(counters[:_CLASSES])
        text = line.partition(b"\0")[0].decode("utf-8", "replace") if busy else ""
        return LaneFacts(
            busy=int(busy),
            began=began if busy else 0.0,
            line=text,
            gave=gave if busy else 0.0,
            quiet=text,
            requests=min(sum(by_class), _MOST),
            by_class=by_class,
            sent=counters[_SENT],
            connections=counters[_CONNECTIONS],
            latency=tuple(counters[_LATENCY:]),
        )

    def _began(self, at: int) -> float:
        began: float = _DOUBLE.unpack_from(self._memory, at + _LANE - 8)[0]
        return began


def _header_size(slots: int) -> int:
    return -(-(_USED_AT + slots) // mmap.PAGESIZE) * mmap.PAGESIZE


def _merge(lanes: list[LaneFacts]) -> LaneFacts:
    busy = [lane for lane in lanes if lane.busy]
    oldest = min(busy, key=lambda lane: lane.began, default=LaneFacts())
    quiet = min(busy, key=lambda lane: lane.gave, default=LaneFacts())
    return LaneFacts(
        busy=len(busy),
        began=oldest.began,
        line=oldest.line,
        gave=quiet.gave,
        quiet=quiet.line,
        requests=_total(lane.requests for lane in lanes),
        by_class=tuple(map(_total, zip(*(lane.by_class for lane in lanes), strict=True))) or LaneFacts().by_class,
        sent=_total(lane.sent for lane in lanes),
        connections=_total(lane.connections for lane in lanes),
        latency=tuple(map(_total, zip(*(lane.latency for lane in lanes), strict=True))) or LaneFacts().latency,
    )


def _total(counts: Iterable[int]) -> int:
    return min(sum(counts), _MOST)
