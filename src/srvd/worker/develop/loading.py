"""Loads an application under development: reports its files, and serves the traceback in place of code that fails.

Loads as in production otherwise: `zygote/loading.py` and `worker/main.py` are called from here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from srvd.errors import LoadFailed
from srvd.worker.app.hooks import Hooks
from srvd.worker.boot import Preloaded
from srvd.worker.develop import frameworks, page, terminal
from srvd.worker.develop.reports import Reporter

__all__ = ["Development"]


class Development:
    """One load, in a zygote or a worker."""

    def __init__(self, address: str, pool: str, interface: str) -> None:
        """`address`: of the watcher. `interface`: the pool's setting."""
        self._interface = interface
        self.reporter = Reporter(address, pool)

    def load(self, load: Callable[[], Preloaded]) -> Preloaded:
        """Loads with `load`, or returns an application that serves the traceback of that. Raises `LoadFailed` if the
        last code is to serve on.
        """
        instead = self._begin()
        try:
            if instead is not None:
                return instead
            try:
                loaded = load()
            except LoadFailed as failed:
                return self.refused(failed)
            self.reporter.loaded(frameworks.template_folders(loaded.app))
            return loaded._replace(app=frameworks.with_static_files(loaded.app))
        finally:
            self.reporter.close()

    def _begin(self) -> Preloaded | None:
        """Begins a load. Returns what is to be served in its place: the traceback of an earlier attempt."""
        told = self.reporter.begin()
        terminal.take(str(told.get("terminal", "")))
        text = str(told.get("page", ""))
        if not text:
            return None
        self.reporter.failed(LoadFailed(text))
        return self._page(text)

    def refused(self, failed: LoadFailed) -> Preloaded:
        """Reports a load that failed. Returns what serves its traceback; raises the error if nothing is to."""
        hint = f"\n{failed.hint}" if failed.hint else ""
        text = str(failed.detail.get("traceback", "")) or failed.message + hint
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
        if not self.reporter.failed(failed):
            raise failed
        return self._page(text)

    def _page(self, text: str) -> Preloaded:
        return Preloaded(page.make(text, self._interface), Hooks())
