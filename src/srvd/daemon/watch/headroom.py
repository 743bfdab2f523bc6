"""How much memory a reload would find: what is available, and what one more worker of each pool is expected to cost.

Measures only when a reload asks: no timer, no thread. What cannot be read is absent, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from srvd.core.model import Headroom, Phase
from srvd.core.state.model import Pool, SupervisorState
from srvd.linux.processes.cgroup import memory_left

SAMPLE = 4
"""Workers measured for each pool: reading smaps takes a millisecond and more for each."""


def headroom(house: SupervisorState, names: Iterable[str]) -> tuple[tuple[str, Headroom], ...]:
    """For each pool the available memory and what one more of its workers takes, in bytes; 0 where unknown."""
    try:
        # Here, not above: it costs 9 ms and 2 MiB, and only a reload needs it.
        import psutil
    except (ImportError, OSError):  # no descriptor is left to read it with, for one
        return ()
    unreadable = (psutil.Error, OSError)  # under ProcSubset=pid psutil raises FileNotFoundError
    try:
        available = int(psutil.virtual_memory().available)
    except unreadable:
        return ()
    left = memory_left()
    if left is not None:
        available = min(available, left)
    out = []
    for name in names:
        pids = _pids(house.pools.get(name))
        sizes = []
        for pid in pids[:SAMPLE]:
            try:
                sizes.append(int(psutil.Process(pid).memory_full_info().pss))
            except unreadable:
                continue
        out.append((name, Headroom(available, _cost(sizes, len(pids)))))
    return tuple(out)


def _cost(sizes: list[int], count: int) -> int:
    """Proportional set sizes (PSS), summed over a zygote and its workers, are what all of them take. So a generation
    takes the mean PSS count + 1 times; the zygote's part is shared out among its workers here.
    """
    return sum(sizes) * (count + 1) // (len(sizes) * count) if sizes else 0


def _pids(pool: Pool | None) -> list[int]:
    return [int(w.pid) for w in pool.workers() if w.phase is Phase.SERVING and w.pid is not None] if pool else []
