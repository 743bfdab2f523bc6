"""Measures the memory for a reload: what is available, and what one more worker of each pool is expected to use.

Runs only at a reload: no timer, no thread. A value that cannot be read is left out and is never an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from srvd.core.model import Headroom, Phase
from srvd.core.state.model import Pool, SupervisorState
from srvd.linux.processes.cgroup import memory_left

SAMPLE = 4
"""Workers measured in each pool, at most: reading smaps takes a millisecond or more for each worker."""


def headroom(state: SupervisorState, names: Iterable[str]) -> tuple[tuple[str, Headroom], ...]:
    """Return for each pool the available memory and the cost of one more worker, in bytes; cost 0 if unknown."""
    try:
        # Imported here: psutil costs 9 ms and 2 MiB, and only a reload needs it.
        import psutil
    except (ImportError, OSError):  # OSError, for example: no free descriptor to read the module with
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
        pids = _pids(state.pools.get(name))
        sizes = []
        for pid in pids[:SAMPLE]:
            try:
                sizes.append(int(psutil.Process(pid).memory_full_info().pss))
            except unreadable:
                continue
        out.append((name, Headroom(available, _cost(sizes, len(pids)))))
    return tuple(out)


def _cost(sizes: list[int], count: int) -> int:
    """Return the memory of a generation per worker, in bytes; `sizes`: proportional set sizes (PSS) of some workers.

    The PSS of a zygote and its workers add up to what the generation uses: the mean PSS times count + 1. The zygote's
    part is divided among the workers.
    """
    return sum(sizes) * (count + 1) // (len(sizes) * count) if sizes else 0


def _pids(pool: Pool | None) -> list[int]:
    return [int(w.pid) for w in pool.workers() if w.phase is Phase.SERVING and w.pid is not None] if pool else []
