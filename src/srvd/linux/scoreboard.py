"""The scoreboard: a shared file of each generation on which every thread of its workers writes what it is doing.

Not a channel: nobody is told when something changes; the daemon reads it when it needs to know.

One memfd for each generation, so that what one application scribbles is read of no other one. It has a slot for each
worker, a slot a lane for each thread, and each lane has one writer, so that no store ever needs a lock. It holds lanes
and nothing else: how many there are the daemon knows by itself. The daemon maps none of it but reads it as a file, and
trusts nothing that it reads. Whether the daemon looks is in a file of its own, the bell, which workers only read.
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

__all__ = ["Bell", "Board", "Lane", "LaneFacts", "Request", "lanes_of", "size_of"]

LATENCY_BUCKETS = 32
"""Bucket n counts requests of 2^(n-1) to 2^n µs; the last one takes all that were longer (18 minutes and up)."""

_CLASSES = 6  # by_class: index 0 takes statuses outside 100..599

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
_BEGAN_AT = _LANE - 8
_BEGAN = _BEGAN_AT // 8  # index of `began` among the lane's doubles
_GAVE = _BEGAN - 1
_MOST = 2**53 - 1
"""Of any number that leaves here: what was scribbled must fit into messages and states, and so must the sum over all
workers of a pool."""

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


def lanes_of(threads: int) -> int:
    """Lanes that a worker with so many threads has: one for its loop, and one for each that runs calls beside it."""
    return 1 if threads <= 1 else 1 + threads


class Bell:
    """Whether the daemon looks at the scoreboards by itself at present; if not, a request that begins has to ring."""

    __slots__ = ("_watching", "fd")

    SIZE = mmap.PAGESIZE

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._watching = False
        self.watching = True

    @classmethod
    def create(cls) -> Bell:
        """Raises `SystemRefused` where the kernel gives no memfd."""
        try:
            fd = os.memfd_create("srvd-bell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.fchmod(fd, 0o600)  # it is anybody's else, who could open it anew for writing
            os.ftruncate(fd, cls.SIZE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError as exc:
            raise SystemRefused(f"create the scoreboard's bell: {exc.strerror}; srvd cannot start") from exc
        return cls(fd)

    @classmethod
    def adopt(cls, fd: int) -> Bell:
        """The bell that a worker has brought, which it cannot write. Raises `OSError`."""
        try:
            return cls(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
        finally:
            os.close(fd)

    def reader(self) -> int:
        """A descriptor for workers: they can neither write it nor, as another user, open it anew. Raises `OSError`."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def watching(self) -> bool:
        return self._watching

    @watching.setter
    def watching(self, on: bool) -> None:
        self._watching = on
        os.pwrite(self.fd, b"\1" if on else b"\0", 0)

    def close(self) -> None:
        os.close(self.fd)


class Lane:
    """One thread's row. Its writer is the only one; `begin` and `end` are on the path of every request."""

    __slots__ = ("_at", "_counts", "_flag", "_memory", "_times")

    def __init__(self, memory: memoryview, at: int, flag: memoryview) -> None:
        row = memory[at : at + _LANE]
        self._memory = memory
        self._flag = flag
        self._at = at + _LINE_AT
        self._counts = row.cast("Q")
        self._times = row.cast("d")

    def begin(self, now: float, line: bytes) -> bool:
        """A request began; `line` is its request line, cut to 176 bytes.

        False: the daemon does not look at the page by itself at present; its doorbell has to be rung.
        """
        # One pack writes them in this order; in between `began` reads 0.0, which is idle.
        _NOW.pack_into(self._memory, self._at, line, now, now)
        return self._flag[0] != 0

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
        bucket = int((now - began) * 1e6).bit_length()
        try:
            counts[kind if 0 < kind < _CLASSES else 0] += 1
            counts[_SENT] += sent
            counts[_LATENCY + (bucket if bucket < LATENCY_BUCKETS else LATENCY_BUCKETS - 1)] += 1
        except ValueError:  # more than 64 bits: the application has written here
            for place in (*range(_CLASSES), _SENT, *range(_LATENCY, _LATENCY + LATENCY_BUCKETS)):
                counts[place] = 0
        self._times[_BEGAN] = 0.0

    def connections(self, count: int) -> None:
        """How many connections are open now."""
        self._counts[_CONNECTIONS] = count

    def release(self) -> None:
        """Let go of the memory; the lane is of no use after it."""
        self._counts.release()
        self._times.release()


class Board:
    """The scoreboard of one generation. Owns the descriptor; what the daemon asks is read from the file."""

    __slots__ = ("_flag", "_lanes", "_memory", "_slot", "fd", "lanes", "slots")

    def __init__(self, fd: int, slots: int, lanes: int) -> None:
        self.fd = fd
        self.slots = slots
        self.lanes = lanes  # of a slot
        self._slot = lanes * _LANE
        self._memory: memoryview | None = None
        self._flag = memoryview(b"\1")
        self._lanes: list[Lane] = []

    @classmethod
    def create(cls, slots: int, lanes: int = 1) -> Board:
        """A new board of so many slots. Raises `OSError`."""
        fd = os.memfd_create("srvd-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size_of(slots, lanes))
            # memfd_create(2), "File sealing": a worker that shrinks it would end its siblings with SIGBUS.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError:
            os.close(fd)
            raise
        return cls(fd, slots, lanes)

    @classmethod
    def attach(cls, fd: int, lanes: int, bell: int) -> Board:
        """For workers: the board behind a descriptor, which it owns from now on, and the bell. Raises `SystemRefused`
        if it is none.
        """
        size = os.fstat(fd).st_size
        if not size or size % (lanes * _LANE):
            raise SystemRefused(f"attach the scoreboard: descriptor {fd} is none; the process cannot go on")
        board = cls(fd, size // (lanes * _LANE), lanes)
        board._memory = memoryview(mmap.mmap(fd, size))
        board._flag = memoryview(mmap.mmap(bell, Bell.SIZE, prot=mmap.PROT_READ))
        return board

    # -- what workers write ---------------------------------------------------------------------------------------

    def lane(self, slot: int, thread: int = 0) -> Lane:
        """The row of one thread of the worker with this slot; there must be one writer for each."""
        self._check(slot)
        if not 0 <= thread < self.lanes:
            raise ValueError(f"lane {thread} of slot {slot}: a slot has {self.lanes} lanes")
        if self._memory is None:
            self._memory = memoryview(mmap.mmap(self.fd, size_of(self.slots, self.lanes)))
        lane = Lane(self._memory, slot * self._slot + thread * _LANE, self._flag)
        self._lanes.append(lane)
        return lane

    # -- what the daemon reads ------------------------------------------------------------------------------------

    def read(self, slot: int) -> LaneFacts:
        """What the worker with this slot is doing: sums over its lanes, and the oldest request under way."""
        data = self._read(slot)
        if self.lanes == 1:
            return self._lane_facts(data, slot, 0)
        return _merge([self._lane_facts(data, slot, thread) for thread in range(self.lanes)])

    def requests(self, slot: int) -> list[Request]:
        """Those under way, the oldest first."""
        data = self._read(slot)
        lanes = [(thread, self._lane_facts(data, slot, thread)) for thread in range(self.lanes)]
        return sorted(
            (Request(thread, lane.began, lane.line) for thread, lane in lanes if lane.busy), key=lambda r: r.began
        )

    def tally(self, slot: int) -> tuple[int, int]:
        """Requests answered, and lanes in a request: all that a list of many workers shows, at a fifth of the cost."""
        data = self._read(slot)
        requests = busy = 0
        now = time.monotonic()
        for at in range(0, self._slot, _LANE):
            requests += sum(_BY_CLASS.unpack_from(data, at))
            busy += 0.0 < _DOUBLE.unpack_from(data, at + _BEGAN_AT)[0] <= now
        return min(requests, _MOST), busy

    def clear(self, slot: int) -> None:
        """Forget what the slot's former worker did."""
        self._check(slot)
        os.pwrite(self.fd, bytes(self._slot), slot * self._slot)

    def close(self) -> None:
        """Close, and unmap what was mapped; every lane of this object ends with it."""
        for lane in self._lanes:
            lane.release()
        self._lanes.clear()
        self._memory = None
        self._flag.release()
        os.close(self.fd)

    def _check(self, slot: int) -> None:
        if not 0 <= slot < self.slots:
            raise ValueError(f"slot {slot}: the scoreboard has {self.slots} slots")

    def _read(self, slot: int) -> bytes:
        # A read(2) of a file that is shorter than it should be is short, where a mapping of it is SIGBUS; and one of a
        # hole makes no page.
        self._check(slot)
        return os.pread(self.fd, self._slot, slot * self._slot).ljust(self._slot, b"\0")

    def _lane_facts(self, data: bytes, slot: int, thread: int) -> LaneFacts:
        at = thread * _LANE
        for _ in range(_TRIES):
            *counters, line, gave, began = _FACTS.unpack_from(data, at)
            # The line belongs to `began` if no other request took the lane while it was read.
            if began == 0.0 or self._began(slot, thread) == began:
                break
            data = self._read(slot)
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

    def _began(self, slot: int, thread: int) -> float:
        raw = os.pread(self.fd, 8, slot * self._slot + thread * _LANE + _BEGAN_AT)
        began: float = _DOUBLE.unpack(raw.ljust(8, b"\0"))[0]
        return began


def size_of(slots: int, lanes: int) -> int:
    """Bytes of a board."""
    return slots * lanes * _LANE


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
