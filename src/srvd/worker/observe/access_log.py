"""The access log: gathers lines for a second at most, and writes them at once.

After a worker is killed, its zygote writes the gathered lines: `rescue`. Formats no line (`http/access_line.py`), and
never makes a request wait: lines that the disk or the pipe does not take are lost, and counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import ENOSPC
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from srvd.http.access_line import LONGEST, Format, Names, Place, Record, compile_format
from srvd.http.access_skip import compile_rules
from srvd.worker.loop import NEVER
from srvd.worker.observe.access_buffer import AccessBuffer
from srvd.worker.observe.access_file import BATCH, AccessFile

if TYPE_CHECKING:
    from srvd.log import Log
    from srvd.worker.loop import Loop

__all__ = ["AccessLog", "SelectiveLog", "rescue"]

_DELAY = 1.0
"""The most seconds that a line waits to be written."""


class AccessLog:
    """The access log of one worker. Any thread may call `add`; only the thread of the loop, other methods."""

    def __init__(
        self,
        path: str,
        format: str,  # noqa: A002 — the setting's name
        loop: Loop,
        log: Log,
        buffer: AccessBuffer,
        names: Names,
        report: Callable[[str], object] = lambda _: None,
        mode: int = 0o640,
    ) -> None:
        """`buffer` must be empty, and belongs to the log from now on. `report` is called, on any thread, with the
        reason when lines begin to be lost, and with "" when no more are lost. `mode`: of a new file.
        """
        self._report = report
        self._compile = partial(_compiled, format, names)
        self._facts = names.facts
        self._spell = self._compile(LONGEST)
        self._loop = loop
        self._log = log
        self._lock = Lock()
        self._buffer = buffer
        self._file = AccessFile(path, mode)
        self._missed = 0  # lines lost since the last written one
        self.lost = 0  # lines ever
        self.deadline = NEVER
        if problem := self._open():
            report(problem)
        loop.watch(self)

    def add(self, record: Record) -> None:
        """Adds a line, to be written within a second."""
        if self._facts is not None:
            record = record._replace(scope=self._facts(dict(record.scope)))
        line = f"{self._spell(record)}\n".encode()
        with self._lock:
            # A line has 8 KiB at most, and the buffer has room for a line beyond a batch.
            if self._buffer.add(line) >= BATCH:
                self._flush()
            elif self.deadline == NEVER:
                self.deadline = time.monotonic() + _DELAY
                self._loop.due_at(self.deadline)

    def expire(self, now: float) -> None:
        """Writes the gathered lines, after the oldest has waited for a second."""
        with self._lock:
            self._flush()

    def reopen(self) -> str:
        """Writes the gathered lines to the former file, and opens the path anew. Returns the reason of a failure or "".

        The former file stays in use if the path cannot be opened.
        """
        with self._lock:
            self._flush()
            return self._open()

    def close(self) -> None:
        """Writes the gathered lines, and closes the file."""
        with self._lock:
            self._flush()
            self._file.close()
        self._loop.forget(self)

    def _open(self) -> str:
        file = self._file
        try:
            file.open()
        except OSError as exc:
            problem = f"open the access log {file.path}: {exc.strerror}"
            remains = "the former file stays in use" if file.is_open else "its lines are lost until it can be"
            self._log.error(f"{problem}; {remains}")
            return problem
        self._spell = self._compile(file.longest)
        return ""

    def _flush(self) -> None:
        self.deadline = NEVER
        if not self._buffer.size:
            return
        data = self._buffer.take()
        file = self._file
        if not file.is_open and self._missed:  # reported already; perhaps the path can be opened by now
            with suppress(OSError):  # as before
                file.open()
        missed = data.count(b"\n") - (self._write(data) if file.is_open else 0)
        self._buffer.clear()
        if missed:
            self.lost += missed
            self._missed += missed
        elif self._missed:
            self._log.warning(f"access log {file.path}: lines lost: {self._missed}; it takes them again")
            self._report("")
            self._missed = 0

    def _write(self, lines: bytes) -> int:
        """Writes lines, and returns how many were written whole; reports the first of several failures."""
        written, error = self._file.write(lines)
        if error is not None and not self._missed:
            problem = f"write the access log {self._file.path}: {error.strerror}"
            self._log.error(f"{problem}; its lines are lost meanwhile")
            self._report(problem)
        return written


class SelectiveLog(AccessLog):
    """An access log without the lines of requests that a rule fits."""

    def leave_out(self, rules: Sequence[str], names: Names) -> None:
        """Sets the rules (`http/access_skip.py`); to be called before the first line."""
        self._method, self._path = names.method, names.path
        self._skips = compile_rules(rules)

    def add(self, record: Record) -> None:
        scope = record.scope if self._facts is None else self._facts(dict(record.scope))
        if not self._skips(str(scope.get(self._method, "")), str(scope.get(self._path, "")), record.code):
            super().add(record)


def _compiled(text: str, names: Names, longest: int) -> Format:
    return compile_format(text, Place(os.getpid(), _zone, names, longest))


def rescue(path: str, buffer: AccessBuffer) -> tuple[int, str]:
    """Writes the lines that a killed process has left. Returns how many could not be written, and the reason."""
    data = buffer.take()
    data = data[: data.rfind(b"\n") + 1]
    left = data.count(b"\n")
    if not left:
        return 0, ""
    file = AccessFile(path)
    try:
        file.open()
    except OSError as exc:
        return left, exc.strerror or str(exc)
    written, error = file.write(data)
    file.close()
    if written == left:
        return 0, ""
    return left - written, os.strerror(ENOSPC) if error is None else error.strerror or str(error)


def _zone(at: int) -> int:
    return time.localtime(at).tm_gmtoff
