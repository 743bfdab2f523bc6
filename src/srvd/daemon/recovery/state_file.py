"""The state file beside the control socket, for the next daemon if this one dies.

Knows nothing of the content. The file is replaced in one step and only when the content has changed: never while
nothing happens, and never so often that writing takes more than a twentieth of the daemon's time. A service manager may
keep a copy in memory (`fd_store.py`). If the disk is full, the daemon goes on, warns once, and tries again.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import zlib
from collections.abc import Callable
from struct import Struct
from typing import Protocol

from srvd.daemon.control.socket_path import is_ours
from srvd.daemon.loop import Loop, Timer
from srvd.errors import Unsupported
from srvd.record import Record

__all__ = ["HEADER", "LIMIT", "Sealed", "StateFile", "measure", "read", "seal", "set_aside", "unseal"]

LIMIT = 32 << 20
"""Bytes. A larger state is neither written nor read."""

_SHARE = 20.0
"""Length of the pause after a write, as a multiple of the write's CPU time."""

_LONGEST = 0.5
"""Seconds of the longest pause: the file is never further behind, however large the state."""

_AGAIN = 5.0
"""Seconds after which a failed write is tried again, even if nothing has changed."""

BAD = ".bad"
"""Suffix of the path to which an unreadable state is moved, for diagnosis."""


_HEADER = Struct("<8sQQI")  # magic, time of the write, length of the content, checksum of all this and the content
_MAGIC = b"srvd 1\r\n"

HEADER = _HEADER.size
"""Length of the header in bytes."""


class Sealed(Record):
    """A written state with the time of the write (monotonic nanoseconds): of two states the later one is valid."""

    stamp: int
    data: bytes


def seal(state: Sealed) -> bytes:
    """Return header and content, for `unseal`."""
    bare = _HEADER.pack(_MAGIC, state.stamp, len(state.data), 0)
    return _HEADER.pack(_MAGIC, state.stamp, len(state.data), zlib.crc32(state.data, zlib.crc32(bare))) + state.data


def measure(header: bytes) -> tuple[int, int]:
    """Return the time stamp and the length of content in a header; (0, 0): this is no header."""
    if len(header) != HEADER or not header.startswith(_MAGIC):
        return 0, 0
    _, stamp, length, _ = _HEADER.unpack(header)
    return stamp, length


def unseal(raw: bytes) -> Sealed:
    """Read what `seal` returned. Raises `Unsupported`: no state, or damaged."""
    stamp, length = measure(raw[:HEADER])
    state = Sealed(stamp, raw[HEADER:])
    if not stamp or len(state.data) != length or seal(state) != raw:
        raise Unsupported("read the state: it is none, or damaged")
    return state


class Copy(Protocol):
    """A second place for the state."""

    @property
    def has_store(self) -> bool: ...

    def write(self, sealed: bytes) -> None: ...

    def clear(self) -> None: ...


class StateFile:
    """Writes the state file of a running daemon."""

    def __init__(self, path: str, copy: Copy, content: Callable[[], bytes], warn: Callable[[str], None]) -> None:
        """`content`: called when the state may have changed; returns b"" while there is nothing to save yet."""
        self._path = path
        self._copy = copy
        self._content = content
        self._warn = warn
        self._written = b""
        self._not_before = 0.0
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._failed = ""
        self._again: Timer | None = None

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.touch()

    def touch(self) -> None:
        """Schedule a write, because the state may have changed."""
        if self._timer is None and self._loop is not None:
            # As a rule at the end of this turn of the loop, so that changes that belong together are written together.
            self._timer = self._loop.call_later(max(0.0, self._not_before - time.monotonic()), self._write)

    def save(self) -> None:
        """Write at once if a write is scheduled."""
        if self._timer is not None:
            self._timer.cancel()
            self._write()

    def close(self, *, remove: bool) -> None:
        """Stop writing. `remove`: delete file and copy, because no process is left to be adopted."""
        for timer in (self._timer, self._again):
            if timer is not None:
                timer.cancel()
        self._timer = self._again = self._loop = None
        if remove:
            self._unlink()
            self._copy.clear()

    def _write(self) -> None:
        self._timer = None
        if self._again is not None:
            self._again.cancel()
        began = time.thread_time()  # CPU time: time taken by other processes does not count
        data = self._content()
        if data and data != self._written:
            self._replace(data)
        self._not_before = time.monotonic() + min(_LONGEST, _SHARE * (time.thread_time() - began))

    def _replace(self, data: bytes) -> None:
        """Write both places. Empties a place that cannot be written: the next daemon would use an outdated state."""
        sealed = seal(Sealed(time.monotonic_ns(), data))
        failed = self._write_copy(sealed) if self._copy.has_store else ""
        if failed:
            failed = f"keep the state with the service manager: {failed}; it is beside the control socket alone"
        try:
            self._write_file(sealed)
        except OSError as exc:
            self._unlink()
            alone = self._copy.has_store and not failed
            failed = f"write {self._path}: {exc.strerror or exc}; " + (
                "the state is with the service manager alone"
                if alone
                else "should this daemon die, the next one cannot adopt its workers, and has to start anew"
            )
        if failed and not self._failed:
            self._warn(failed)
        elif self._failed and not failed:
            self._warn(
                f"write {self._path}: it is whole again; should this daemon die, the next one adopts its workers"
            )
        self._written, self._failed = b"" if failed else data, failed
        if failed and self._loop is not None:
            self._again = self._loop.call_later(_AGAIN, self._write)

    def _write_copy(self, sealed: bytes) -> str:
        """Write the copy. Returns why it could not be written; "" after success."""
        try:
            if len(sealed) > LIMIT:
                raise OSError(f"it has {len(sealed)} bytes, {LIMIT} are the most")
            self._copy.write(sealed)
        except OSError as exc:
            self._copy.clear()
            return exc.strerror or str(exc)
        return ""

    def _write_file(self, sealed: bytes) -> None:
        """Replace the file. Raises `OSError`."""
        fresh = f"{self._path}.new"
        if len(sealed) > LIMIT:
            raise OSError(f"it has {len(sealed)} bytes, {LIMIT} are the most")
        # Never opens an existing path: it could be a link to any file.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(sealed)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.replace(fresh, self._path)

    def _unlink(self) -> None:
        for path in (self._path, f"{self._path}.new"):
            with contextlib.suppress(OSError):  # the file is missing, or its folder belongs to another user now
                os.unlink(path)


def read(path: str) -> Sealed | None:
    """Read a state file; None: there is none, or it is empty. Raises `Unsupported`: the file is something else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
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
    except OSError as exc:
        raise Unsupported(f"read {path}: {exc.strerror}") from exc
    finally:
        os.close(fd)
    return unseal(data) if data else None


def set_aside(path: str) -> str:
    """Move an unreadable state aside. Returns its new path, "" if it could not be moved."""
    try:
        os.rename(path, path + BAD)
    except OSError:
        return ""
    return path + BAD
