"""The scoreboard: a shared file of each generation in which every worker thread records its current request.

A write notifies no process; the daemon reads the file when it needs the facts.

Each generation has its own memfd, so that garbage written by one application is never read as facts about another. A
memfd has a slot for each worker, and a slot has a lane for each thread. Each lane has one writer, so no store needs a
lock. The file holds lanes and nothing else; the daemon knows their number by itself. The daemon does not map the memfd
but reads it as a file, and trusts none of its content. Whether the daemon reads regularly is written in a file of its
own, the bell, which workers only read.
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

__all__ = ["AHEAD", "Bell", "Board", "Lane", "LaneFacts", "LoopFacts", "Request", "lanes_of", "size_of"]

LATENCY_BUCKETS = 32
"""Bucket n counts requests of 2^(n-1) to 2^n µs; the last bucket counts all longer ones (18 minutes and up)."""

_CLASSES = 6  # by_class: index 0 takes statuses outside 100..599

# A lane is 512 bytes: counters of 8 bytes (by_class, sent, connections, latency, and of a worker with an event loop its
# requests in flight, WebSockets and lag), then the request under way: its line, the time of the application's last
# output for it, and the time of its beginning.
_COUNTERS = _CLASSES + 2 + LATENCY_BUCKETS + 3
_SENT, _CONNECTIONS, _LATENCY = _CLASSES, _CLASSES + 1, _CLASSES + 2
_IN_FLIGHT = _LATENCY + LATENCY_BUCKETS
_WEBSOCKETS, _LAG = _IN_FLIGHT + 1, _IN_FLIGHT + 2
_LINE_AT = _COUNTERS * 8
_LINE = 152
_LANE = 512
_NOW = Struct(f"@{_LINE}sdd")  # line, gave, began
_FACTS = Struct(f"@{_COUNTERS}Q{_LINE}sdd")
_BY_CLASS = Struct(f"@{_CLASSES}Q")
_DOUBLE = Struct("@d")
_BEGAN_AT = _LANE - 8
_BEGAN = _BEGAN_AT // 8  # index of `began` among the lane's doubles
_GAVE = _BEGAN - 1
_MOST = 2**53 - 1
"""The most that any returned number may be: garbage in the file must fit into messages and states, and so must the sum
over all workers of a pool."""

AHEAD = 5.0
"""Seconds by which `gave` may be in the future: a worker that ends late requests itself asks for so much patience."""

_TRIES = 3

assert _FACTS.size == _LANE


class LoopFacts(Record):
    """What is under way in an event loop. lag: longest time for which it looked after nobody lately, in seconds."""

    in_flight: int = 0  # requests, event streams and WebSockets
    websockets: int = 0
    lag: float = 0.0


class LaneFacts(Record):
    """The facts of one lane, or of all lanes of a worker together. Times are monotonic seconds, sizes bytes."""

    busy: int = 0  # lanes in a request
    began: float = 0.0  # when the oldest request under way began; 0.0: idle
    line: str = ""  # its request line
    gave: float = 0.0  # when the longest-waiting request under way began, or last got a part of its response
    quiet: str = ""  # the request line of that request
    requests: int = 0  # answered
    by_class: tuple[int, ...] = (0,) * _CLASSES  # answered, by status // 100; index 0: no proper status
    sent: int = 0
    connections: int = 0  # open now
    latency: tuple[int, ...] = (0,) * LATENCY_BUCKETS
    event_loop: LoopFacts = LoopFacts()


class Request(Record):
    """A request under way."""

    lane: int
    began: float  # monotonic
    line: str


def lanes_of(threads: int) -> int:
    """Returns the number of lanes of a worker with so many threads: one for its loop, and one for each thread that runs
    calls beside the loop.
    """
    return 1 if threads <= 1 else 1 + threads


class Bell:
    """A flag file that tells workers whether the daemon reads the scoreboards regularly at present. If not, a worker
    must wake the daemon when a request begins.
    """

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
            os.fchmod(fd, 0o600)  # by default any user may open a memfd anew for writing
            os.ftruncate(fd, cls.SIZE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError as exc:
            raise SystemRefused(f"create the scoreboard's bell: {exc.strerror}; srvd cannot start") from exc
        return cls(fd)

    @classmethod
    def adopt(cls, fd: int) -> Bell:
        """Opens, for writing, the bell behind the read-only descriptor that a worker has passed. Raises `OSError`."""
        try:
            return cls(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC))
        finally:
            os.close(fd)

    def reader(self) -> int:
        """Returns a read-only descriptor for workers; a worker of another user cannot open the file anew for writing.
        Raises `OSError`.
        """
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
    """The lane of one thread, which is its only writer. `begin` and `end` are called for every request."""

    __slots__ = ("_at", "_counts", "_flag", "_memory", "_row", "_times")

    def __init__(self, memory: memoryview, at: int, flag: memoryview) -> None:
        row = memory[at : at + _LANE]
        self._memory, self._flag, self._at = memory, flag, at + _LINE_AT
        self._row = row.cast("Q")
        self._counts = [0] * _COUNTERS  # an application may have written to the row; and reading it takes longer
        self._times = row.cast("d")

    def begin(self, now: float, line: bytes) -> bool:
        """Records that a request began; `line` is its request line, cut to 152 bytes.

        Returns False if the daemon does not read the scoreboards at present, so that the worker must wake it.
        """
        # One pack writes the three in this order; until the last is written, `began` reads 0.0, which means idle.
        _NOW.pack_into(self._memory, self._at, line, now, now)
        return self._flag[0] != 0

    def show(self, began: float, line: bytes, gave: float) -> bool:
        """Records a request that has begun, and when it last got a part of its response. Returns as `begin` does."""
        _NOW.pack_into(self._memory, self._at, line, gave, began)
        return self._flag[0] != 0

    def show_again(self, began: float) -> bool:
        """Records that the request that was shown is still under way, after the `end` of another one. Returns what
        `begin` does.
        """
        self._times[_BEGAN] = began
        return self._flag[0] != 0

    @property
    def began(self) -> float:
        """When the request under way began; 0.0 without one."""
        return self._times[_BEGAN]

    @property
    def last_gave(self) -> float:
        """When the application last gave a part of the response; before the first part, when the request began."""
        return self._times[_GAVE]

    def gave(self, now: float) -> None:
        """Records that the application has given a part of the response."""
        self._times[_GAVE] = now

    def rest(self) -> None:
        """Records that no request is under way, and counts none."""
        self._times[_BEGAN] = 0.0

    def end(self, now: float, status: int, sent: int, began: float) -> None:
        """Records the end of the request that began at `began`: answered with `status` (0: not answered) and `sent`
        bytes in all.
        """
        counts, row = self._counts, self._row
        kind = status // 100
        if not 0 < kind < _CLASSES:
            kind = 0
        bucket = _LATENCY + int((now - began) * 1e6).bit_length()
        if bucket >= _IN_FLIGHT:
            bucket = _IN_FLIGHT - 1
        counts[kind] = row[kind] = counts[kind] + 1
        counts[_SENT] = row[_SENT] = counts[_SENT] + sent
        counts[bucket] = row[bucket] = counts[bucket] + 1
        self._times[_BEGAN] = 0.0

    def connections(self, count: int) -> None:
        """Records the number of open connections."""
        self._row[_CONNECTIONS] = count

    def event_loop(self, in_flight: int, websockets: int, lag: float) -> None:
        """Records `LoopFacts`."""
        self._row[_IN_FLIGHT], self._row[_WEBSOCKETS], self._row[_LAG] = in_flight, websockets, int(lag * 1e6)

    def release(self) -> None:
        """Releases the memory; the lane cannot be used after that."""
        self._row.release()
        self._times.release()


class Board:
    """The scoreboard of one generation. Owns the descriptor. Workers write to a mapping; the daemon reads the file."""

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
        """Makes a new board of so many slots. Raises `OSError`."""
        fd = os.memfd_create("srvd-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size_of(slots, lanes))
            # memfd_create(2), "File sealing": a worker that shrank the file would kill its siblings by SIGBUS.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except OSError:
            os.close(fd)
            raise
        return cls(fd, slots, lanes)

    @classmethod
    def attach(cls, fd: int, lanes: int, bell: int) -> Board:
        """Maps the board behind a descriptor, and the bell, for a worker. The board owns `fd` from now on. Raises
        `SystemRefused` if the file has not the size of a board.
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
        """Returns the lane of one thread of the worker with this slot; each lane must have one writer."""
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
        """Returns the facts of the worker with this slot: sums over its lanes, and the oldest request under way."""
        data = self._read(slot)
        if self.lanes == 1:
            return self._lane_facts(data, slot, 0)
        return _merge([self._lane_facts(data, slot, thread) for thread in range(self.lanes)])

    def requests(self, slot: int) -> list[Request]:
        """Returns the requests under way, the oldest first."""
        data = self._read(slot)
        lanes = [(thread, self._lane_facts(data, slot, thread)) for thread in range(self.lanes)]
        return sorted(
            (Request(thread, lane.began, lane.line) for thread, lane in lanes if lane.busy), key=lambda r: r.began
        )

    def tally(self, slot: int) -> tuple[int, int]:
        """Returns the number of answered requests, and of lanes with a request under way. Costs a fifth of `read`, for
        lists of many workers.
        """
        data = self._read(slot)
        requests = busy = 0
        now = time.monotonic()
        for at in range(0, self._slot, _LANE):
            requests += sum(_BY_CLASS.unpack_from(data, at))
            busy += 0.0 < _DOUBLE.unpack_from(data, at + _BEGAN_AT)[0] <= now
        return min(requests, _MOST), busy

    def clear(self, slot: int) -> None:
        """Clears the lanes of the slot's former worker."""
        self._check(slot)
        os.pwrite(self.fd, bytes(self._slot), slot * self._slot)

    def close(self) -> None:
        """Closes the descriptor, and releases the mappings and all lanes of this object."""
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
        # Of a file that is too short, a read(2) returns fewer bytes, where access to a mapping raises SIGBUS. Reading
        # a hole allocates no page.
        self._check(slot)
        return os.pread(self.fd, self._slot, slot * self._slot).ljust(self._slot, b"\0")

    def _lane_facts(self, data: bytes, slot: int, thread: int) -> LaneFacts:
        at = thread * _LANE
        for _ in range(_TRIES):
            *counters, line, gave, began = _FACTS.unpack_from(data, at)
            # The line belongs to `began` if no other request began in the lane during the read.
            if began == 0.0 or self._began(slot, thread) == began:
                break
            data = self._read(slot)
        else:
            line = b""
        now = time.monotonic()
        busy = 0.0 < began <= now  # neither NaN nor nonsense
        gave = gave if began <= gave <= now + AHEAD else began
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
            latency=tuple(counters[_LATENCY:_IN_FLIGHT]),
            event_loop=LoopFacts(counters[_IN_FLIGHT], counters[_WEBSOCKETS], counters[_LAG] / 1e6),
        )

    def _began(self, slot: int, thread: int) -> float:
        raw = os.pread(self.fd, 8, slot * self._slot + thread * _LANE + _BEGAN_AT)
        began: float = _DOUBLE.unpack(raw.ljust(8, b"\0"))[0]
        return began


def size_of(slots: int, lanes: int) -> int:
    """Returns the size of a board in bytes."""
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
        event_loop=lanes[0].event_loop,  # a worker has one at most
    )


def _total(counts: Iterable[int]) -> int:
    return min(sum(counts), _MOST)
