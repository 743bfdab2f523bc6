"""The file beside the control socket with what the next daemon has to know, should this one die.

Knows nothing of its content. Written in one step and only when the content has changed; never while nothing happens,
and never so often that it costs more than a twentieth of the daemon's time. The disk may be full: the daemon goes on,
and says once that nobody would adopt its workers.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable

from srvd.daemon.control_socket import is_ours
from srvd.daemon.loop import Loop, Timer
from srvd.errors import Unsupported

__all__ = ["LIMIT", "StateFile", "read", "set_aside"]

LIMIT = 32 << 20
"""Bytes. What is larger is not written, and not read."""

_SHARE = 20.0
"""Times that the pause after a writing is as long as the writing took."""

_LONGEST = 0.5
"""Seconds that a state may be behind, however large it is."""

BAD = ".bad"
"""Ends the path of a state that could not be read, for whoever wants to know why."""


class StateFile:
    """Of a daemon that runs."""

    def __init__(self, path: str, content: Callable[[], bytes], warn: Callable[[str], None]) -> None:
        """`content` is called when it may have changed; b"" means that there is nothing to say yet."""
        self._path = path
        self._content = content
        self._warn = warn
        self._written = b""
        self._not_before = 0.0
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._failed = False

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.touch()

    def touch(self) -> None:
        """Something happened."""
        if self._timer is None and self._loop is not None:
            # At the end of this turn of the loop, as a rule: what belongs together is written together.
            self._timer = self._loop.call_later(max(0.0, self._not_before - time.monotonic()), self._write)

    def save(self) -> None:
        """Write at once what has happened."""
        if self._loop is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._write()

    def close(self, *, remove: bool) -> None:
        """Write no more; `remove` when nobody is left to be adopted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None
        if remove:
            self._unlink()

    def _write(self) -> None:
        self._timer = None
        began = time.thread_time()  # what the others of this machine take is not ours to spare
        data = self._content()
        if data and data != self._written:
            self._replace(data)
        self._not_before = time.monotonic() + min(_LONGEST, _SHARE * (time.thread_time() - began))

    def _replace(self, data: bytes) -> None:
        fresh = f"{self._path}.new"
        try:
            if len(data) > LIMIT:
                raise OSError(f"it has {len(data)} bytes, {LIMIT} are the most")
            # Not over what may stand there: a link would lead anywhere.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            finally:
                os.close(fd)
            os.replace(fresh, self._path)
        except OSError as exc:
            self._fail(exc.strerror or str(exc))
        else:
            self._written, self._failed = data, False

    def _fail(self, reason: str) -> None:
        """What was written before is not true any more, and would be believed."""
        self._written = b""
        self._unlink()
        if not self._failed:
            self._failed = True
            self._warn(
                f"write {self._path}: {reason}; should this daemon die, the next one cannot adopt its workers, and has "
                "to start anew"
            )

    def _unlink(self) -> None:
        for path in (self._path, f"{self._path}.new"):
            with contextlib.suppress(OSError):  # it is not there, or its folder is not ours any more
                os.unlink(path)


def read(path: str) -> bytes:
    """What a daemon has written there; b"" if none has. Raises `Unsupported`: there is something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    except OSError as exc:
        raise Unsupported(f"read {path}: {exc.strerror}") from exc
    try:
        entry = os.fstat(fd)
        if not stat.S_ISREG(entry.st_mode) or not is_ours(entry) or entry.st_mode & 0o077:
            raise Unsupported(f"read {path}: it is no file that only root or the daemon's user can read and write")
        if entry.st_size > LIMIT:
            raise Unsupported(f"read {path}: it has {entry.st_size} bytes, {LIMIT} are the most")
        data = b""
        while chunk := os.read(fd, LIMIT + 1 - len(data)):
            data += chunk
        return data
    except OSError as exc:
        raise Unsupported(f"read {path}: {exc.strerror}") from exc
    finally:
        os.close(fd)


def set_aside(path: str) -> str:
    """Keep a state that cannot be read out of the way; where it is now, "" if it could not be moved."""
    try:
        os.rename(path, path + BAD)
    except OSError:
        return ""
    return path + BAD
