"""How much memory a reload would find: what is available, and what one more worker of each pool is expected to cost.

Measures only when a reload asks: no timer, no thread. What cannot be read is absent, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable

from srvd.core.model import Headroom, Phase
from srvd.core.state import House, Pool

SAMPLE = 4
"""Workers measured for each pool: reading smaps takes a millisecond and more for each."""


def headroom(house: House, names: Iterable[str]) -> tuple[tuple[str, Headroom], ...]:
    """For each pool the available memory and the mean PSS of some of its workers, in bytes; 0 where unknown."""
    # Here, not above: it costs 9 ms and 2 MiB, and only a reload needs it.
    import psutil

    unreadable = (psutil.Error, OSError)  # under ProcSubset=pid psutil raises FileNotFoundError
    try:
        available = int(psutil.virtual_memory().available)
    except unreadable:
        return ()
    out = []
    for name in names:
        sizes = []
        for pid in _pids(house.pools.get(name)):
            try:
                sizes.append(int(psutil.Process(pid).memory_full_info().pss))
            except unreadable:
                continue
        out.append((name, Headroom(available, sum(sizes) // len(sizes) if sizes else 0)))
    return tuple(out)


def _pids(pool: Pool | None) -> list[int]:
    serving = [w.pid for w in pool.workers() if w.phase is Phase.SERVING and w.pid is not None] if pool else []
    return [int(pid) for pid in serving[:SAMPLE]]
