"""The daemon's pidfile and log file.

Writes no line of the log (`log.py` does), and reads the pidfile only before removing it.
"""

from __future__ import annotations

import contextlib
import errno
import os

from srvd.errors import SystemRefused
from srvd.linux import trust

__all__ = ["LogFile", "Pidfile", "missing_folder"]


class Pidfile:
    """A file with the daemon's pid, for init scripts. The lock of the control socket decides which daemon runs."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self) -> None:
        """Write the pid, replacing the file in one step. Raises `SystemRefused`."""
        if not self._path:
            return
        try:
            folder, name = os.path.split(self._path)
            fresh = trust.settle(os.path.join(folder, f"{name}.{os.getpid()}"))
            path = os.path.join(os.path.dirname(fresh), name)  # rename(2) follows no link there
            with contextlib.suppress(FileNotFoundError):  # left by an earlier daemon with the same pid
                os.unlink(fresh)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise SystemRefused(
                f"write the pidfile {self._path}: {_reason(exc, self._path)}; nothing was started"
            ) from exc
        try:
            try:
                os.write(fd, b"%d\n" % os.getpid())
            finally:
                os.close(fd)
            os.replace(fresh, path)
        except OSError as exc:
            with contextlib.suppress(OSError):  # on a full disk the new file exists and is empty
                os.unlink(fresh)
            raise SystemRefused(
                f"write the pidfile {self._path}: {_reason(exc, self._path)}; nothing was started"
            ) from exc

    def remove(self) -> None:
        """Remove the file if it still contains this process's pid."""
        if not self._path:
            return
        try:
            with open(self._path, encoding="ascii") as file:
                ours = file.read().strip() == str(os.getpid())
            if ours:
                os.unlink(self._path)
        except (OSError, ValueError):
            return  # missing, unreadable, or not a pidfile any more: nothing to remove


class LogFile:
    """The log file behind stderr. It is opened again on request, after logrotate has moved the former file away."""

    def __init__(self, path: str, mode: str) -> None:
        self._path = path
        self._mode = int(mode, 8)

    def open(self) -> None:
        """Make the file, if any, standard error. Raises `SystemRefused`, and then leaves standard error unchanged."""
        if not self._path:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            path = trust.settle(self._path)
            if os.geteuid() == 0 and not path.startswith(("/dev/", "/proc/")):
                flags |= os.O_NOFOLLOW
            # O_NONBLOCK refuses a FIFO without a reader (ENXIO); without it the daemon would wait for a reader.
            fd = os.open(path, flags, self._mode)
        except OSError as exc:
            raise SystemRefused(f"open the log {self._path}: {_reason(exc, self._path)}") from exc
        os.set_blocking(fd, True)
        os.dup2(fd, 2)
        os.close(fd)


def missing_folder(path: str) -> str:
    """Return a text that names the missing folder of a file to be made; "" if the folder exists."""
    folder = os.path.dirname(path) or "."
    return "" if os.path.isdir(folder) else f"there is no folder {folder}"


def _reason(exc: OSError, path: str) -> str:
    """Return why a file could not be written, for a message."""
    return (exc.errno == errno.ENOENT and missing_folder(path)) or str(exc.strerror)
