"""Decides when to order which reload, while which workers hold clients, and what is served in place of broken code.

Orders nothing and watches nothing: `main.py` does. Time is an argument.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from srvd.record import Record
from srvd.watcher.files import Files, Signature
from srvd.watcher.setup import Setup

__all__ = ["Order", "Plan"]

QUIET = 0.02
"""Seconds without a further change until a reload is ordered: an editor renames, git writes many files. A change during
the load ends that load, so waiting longer would save nothing but work."""

LONGEST = 1.0
"""Seconds after which it is ordered though changes go on."""


class Order(Record):
    """pool "": the whole configuration. said: what to tell; "" for the second attempt of a reload. files: those that
    have changed.
    """

    pool: str
    said: str
    files: list[str]


class _Pool:
    def __init__(self, mode: str, extra: list[str]) -> None:
        self.safe = mode == "safe"
        self.files = Files(extra)
        self.pending: set[str] = set()  # paths that have changed
        self.page = ""  # the traceback to serve in place of code that cannot be loaded at all
        self.retries = False  # the page of a failed attempt is to be loaded
        self.was_good = False  # code of this pool has loaded since the start


class Plan:
    """The pools under development."""

    def __init__(self, setup: Setup) -> None:
        self._pools = {name: _Pool(str(mode), list(extra)) for name, (mode, extra) in setup.pools.items()}
        self._folder = setup.folder
        self._config = Files([])
        if setup.config:
            self._config.add(setup.config)
        self._config_changed = False
        self._first = self._last = 0.0  # times of the first and the last pending change
        self._ordered: set[str] = set()  # pools that load now

    # -- as `Files`, of all pools --------------------------------------------------------------------------

    def _all(self) -> list[Files]:
        return [self._config, *(pool.files for pool in self._pools.values())]

    @property
    def broken(self) -> bool:
        return any(files.broken for files in self._all())

    def folders(self) -> set[str]:
        found: set[str] = set()
        return found.union(*(files.folders() for files in self._all()))

    def concerns(self, path: str) -> bool:
        return any(files.concerns(path) for files in self._all())

    def look(self) -> set[str]:
        found: set[str] = set()
        return found.union(*(files.look() for files in self._all()))

    def extra_state(self) -> dict[str, Signature | None]:
        return {path: seen for files in self._all() for path, seen in files.extra_state().items()}

    # -- what happens --------------------------------------------------------------------------------------

    def loaded(self, pool: str, files: Iterable[str], extra: Iterable[str], since: float, *, failed: bool) -> set[str]:
        """A load is over. Returns the files that have changed during it."""
        found = self._pools.get(pool)
        if found is None:
            return set()
        found.files.broken = failed
        found.was_good |= not failed
        files = list(files)
        late = found.files.newer(files, since)
        if failed:
            for file in files:
                found.files.add(file)
        else:
            found.files.replace(files, extra)
        for file in late:
            found.files.forget(file)
        return late

    def add(self, pool: str, file: str, looks: Signature | None) -> set[str]:
        """The application has imported one more, which looked so. Returns it, if it has changed since."""
        if pool in self._pools and self._pools[pool].files.add(file, looks):
            self._pools[pool].files.forget(file)
            return {file}
        return set()

    def noticed(self, paths: set[str], now: float, *, loading: bool) -> bool:
        """Something has happened at these paths. Returns whether any of it is a change."""
        found = False
        for path in sorted(paths):
            if self._config.concerns(path) and self._config.changed(path, loading=False):
                self._config_changed = found = True
            for pool in self._pools.values():
                if pool.files.concerns(path) and pool.files.changed(path, loading=loading):
                    pool.pending.add(path)
                    pool.retries, pool.page, found = False, "", True
        if found:
            self._first = self._first or now
            self._last = now
        return found

    @property
    def due(self) -> float | None:
        """When the next reload is to be ordered; None: none is."""
        if any(pool.retries for pool in self._pools.values()):
            return 0.0
        return min(self._last + QUIET, self._first + LONGEST) if self._first else None

    def order(self, now: float) -> Order | None:
        """Returns the reload that is due now."""
        due = self.due
        if due is None or now < due:
            return None
        pending = {name: pool for name, pool in self._pools.items() if pool.pending or pool.retries}
        said = sorted(path for pool in pending.values() for path in pool.pending)
        whole = self._config_changed or len(pending) != 1
        self._ordered = set(self._pools if whole else pending)
        for pool in pending.values():
            pool.pending, pool.retries = set(), False
        self._first, self._config_changed = 0.0, False
        there = [path for path in said if os.path.exists(path)]  # not what an editor has renamed by now
        text = self._told(there or said) if said or whole else ""
        return Order("" if whole else next(iter(pending)), text, said)

    def over(self, error: str) -> str:
        """The reload is over. Returns what is to be told."""
        ordered, self._ordered = self._ordered, set()
        told = ""
        for name in ordered:
            pool = self._pools[name]
            first = not pool.page
            pool.page = ""
            if error and not pool.pending:
                pool.files.broken = True
                if first and self.serves_page(name):
                    pool.page, pool.retries = error, True
                else:
                    told = "" if pool.safe else f"the reload has failed, and the former code serves: {error}"
        return told

    # -- what holds ----------------------------------------------------------------------------------------

    def page_of(self, pool: str) -> str:
        return self._pools[pool].page if pool in self._pools else ""

    def serves_page(self, pool: str) -> bool:
        """Tells whether a traceback is served, rather than the last code that has loaded."""
        found = self._pools.get(pool)
        return found is not None and not (found.safe and found.was_good)

    def is_pending(self, pool: str) -> bool:
        """Tells whether what loads now is of yesterday."""
        return pool in self._pools and bool(self._pools[pool].pending)

    def holds_new(self, pool: str) -> bool:
        """Tells whether a worker that has just begun is of yesterday, and clients are not to meet it."""
        return self.is_pending(pool) and self.is_held(pool)

    def is_held(self, pool: str) -> bool:
        """Tells whether clients wait for new code. With `safe` they do not."""
        found = self._pools.get(pool)
        return found is not None and not found.safe and bool(found.pending or found.retries or pool in self._ordered)

    def _told(self, paths: list[str]) -> str:
        names = [os.path.relpath(path, self._folder) if path.startswith(self._folder) else path for path in paths[:3]]
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        return f"{', '.join(names)}{more} changed" if names else "the configuration changed"
