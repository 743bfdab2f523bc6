"""The connection of a zygote or worker to the watcher: which files it has loaded, and whether it is to accept clients.

Watches no file: the process `watcher/` does. Without a watcher nothing is reported, and all goes on as in production.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from srvd.errors import LoadFailed
from srvd.linux import credentials
from srvd.wire import watching

__all__ = ["Reporter", "Session", "trace_files"]

_PATIENCE = 5.0
"""Seconds for the watcher to answer; it is idle, or stats a few thousand files."""


class Session:
    """One connection to the watcher; it outlives no error."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()
        self._early: list[str] = []  # orders that came before an answer

    @classmethod
    def connect(cls, address: str) -> Session | None:
        """Returns a connection to the watcher at an address of `wire.paths.watcher_address`; None if there is none."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(address)
            uid = credentials.of_peer(sock).uid
        except OSError:
            sock.close()
            return None
        if uid not in (0, os.getuid()):  # a stranger has taken the name
            sock.close()
            return None
        return cls(sock)

    def say(self, **message: Any) -> None:
        with suppress(OSError):
            self.sock.settimeout(_PATIENCE)
            self.sock.sendall(watching.spell(message))

    def ask(self, **message: Any) -> dict[str, Any]:
        """Sends a message and returns the answer; {} if the watcher is gone."""
        self.say(**message)
        try:
            while True:
                for found in watching.lines(self._buffer):
                    if "order" in found:  # an order to hold clients, which this worker does not serve yet
                        self._early.append(str(found["order"]))
                    else:
                        return found
                data = self.sock.recv(1 << 16)
                if not data:
                    return {}
                self._buffer += data
        except (OSError, ValueError):
            return {}

    def orders(self) -> list[str] | None:
        """Returns the orders that have come: "hold", "go"; None at the end of the connection. Does not wait."""
        if self._early:
            early, self._early = self._early, []
            return early
        try:
            self.sock.settimeout(0)
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self._buffer += data
        try:
            return [str(one.get("order")) for one in watching.lines(self._buffer)] if data else None
        except ValueError:
            return None


class Reporter:
    """Says which files a process has loaded: those of a load at its end, those of later imports at once."""

    def __init__(self, address: str, pool: str) -> None:
        self.address = address
        self.pool = pool
        self.session: Session | None = None
        self._told: set[str] = set()
        self._pid = 0

    def begin(self) -> dict[str, Any]:
        """Connects, and says that a load begins. Returns the watcher's answer: maps of page, terminal."""
        self._pid = os.getpid()
        self.session = Session.connect(self.address)
        if self.session is None:
            return {}
        return self.session.ask(load=self.pool)

    def loaded(self, extra: Iterable[str]) -> None:
        """Says that the load is over. `extra`: folders of templates. Returns when the files are watched."""
        self._say_all(sorted(_loaded_files()), extra=sorted(extra))

    def failed(self, failed: LoadFailed) -> bool:
        """Says that the load has failed. Returns whether its traceback is to be served."""
        cause: BaseException = failed.__cause__ or failed
        files = _loaded_files() | trace_files(cause)
        text = str(failed.detail.get("traceback", failed.message))
        return bool(self._say_all(sorted(files), failed=text).get("page"))

    def close(self) -> None:
        """Ends the connection, before it could be taken for one of the application."""
        if self.session is not None:
            self.session.sock.close()
            self.session = None

    def serve(self) -> Session | None:
        """Connects as a worker that is about to serve."""
        self._pid = os.getpid()
        self.session = Session.connect(self.address)
        if self.session is not None:
            self.session.say(worker=self.pool)
        return self.session

    def _say_all(self, files: Sequence[str], **more: Any) -> dict[str, Any]:
        self._told.update(files)
        return {} if self.session is None else self.session.ask(files=files, **more)

    def imported(self, file: str) -> None:
        """Reports a file that is being imported by a worker."""
        if file not in self._told and self.session is not None and self._pid == os.getpid():
            self._told.add(file)
            looks = None
            with suppress(OSError):  # within an archive
                found = os.stat(file)
                looks = [found.st_mtime_ns, found.st_size, found.st_ino]
            self.session.say(more=os.path.abspath(file), looks=looks)


def _loaded_files() -> set[str]:
    """Returns the files of all modules that are loaded, but those of Python and of srvd."""
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    library = os.path.dirname(os.path.abspath(os.__file__))
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            file = os.path.abspath(file)
            if not file.startswith((f"{own}/srvd/", f"{library}/")) or "/site-packages/" in file[len(library) :]:
                found.add(file)
    return found


def trace_files(exc: BaseException | None) -> set[str]:
    """Returns the files that a traceback names, with the one of a syntax error."""
    found: set[str] = set()
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        found.update(frame.f_code.co_filename for frame, _ in traceback.walk_tb(exc.__traceback__))
        if isinstance(exc, SyntaxError) and exc.filename:
            found.add(exc.filename)
        exc = exc.__cause__ or exc.__context__
    return {os.path.abspath(file) for file in found if not file.startswith("<") and "/srvd/worker/" not in file}
