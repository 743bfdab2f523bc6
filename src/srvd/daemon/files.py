"""The files that the daemon keeps for others: its pidfile, and its log.

Writes no line of the log (`log.py` does), and reads no pidfile but to see whether its process lives.
"""

from __future__ import annotations

import contextlib
import errno
import os

from srvd.errors import SystemRefused
from srvd.linux import trust

__all__ = ["LogFile", "Pidfile", "missing_folder"]


class Pidfile:
    """A file with the daemon's pid, for init scripts; the truth about who runs is the control socket's lock."""

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self) -> None:
        """Replaces what is there in one step. Raises `SystemRefused`."""
        if not self._path:
            return
        try:
            folder, name = os.path.split(self._path)
            fresh = trust.settle(os.path.join(folder, f"{name}.{os.getpid()}"))
            path = os.path.join(os.path.dirname(fresh), name)  # rename(2) follows no link there
            with contextlib.suppress(FileNotFoundError):  # of a daemon with our pid, in another life
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
            with contextlib.suppress(OSError):  # on a full disk it is there, and empty
                os.unlink(fresh)
            raise SystemRefused(
                f"write the pidfile {self._path}: {_reason(exc, self._path)}; nothing was started"
            ) from exc

    def remove(self) -> None:
        """Only if it is still ours."""
        if not self._path:
            return
        try:
            with open(self._path, encoding="ascii") as file:
                ours = file.read().strip() == str(os.getpid())
            if ours:
                os.unlink(self._path)
        except (OSError, ValueError):
            return  # somebody else's by now, or gone: nothing of ours is left there


class LogFile:
    """The file behind stderr, opened anew on request: by then logrotate has moved the former one away."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self) -> None:
        """Standard error becomes the file, if there is one. Raises `SystemRefused`; then stderr stays what it was."""
        if not self._path:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            path = trust.settle(self._path)
            if os.geteuid() == 0 and not path.startswith(("/dev/", "/proc/")):
                flags |= os.O_NOFOLLOW
            # A FIFO that nobody reads is refused (ENXIO): its opening would wait for a reader, and the daemon with it.
            fd = os.open(path, flags, 0o640)
        except OSError as exc:
            raise SystemRefused(f"open the log {self._path}: {_reason(exc, self._path)}") from exc
        os.set_blocking(fd, True)
        os.dup2(fd, 2)
        os.close(fd)


def missing_folder(path: str) -> str:
    """Which folder is missing for a file to be made, for a person; "": it is there."""
    folder = os.path.dirname(path) or "."
    return "" if os.path.isdir(folder) else f"there is no folder {folder}"


def _reason(exc: OSError, path: str) -> str:
    """Why a file could not be written, for a person."""
    return (exc.errno == errno.ENOENT and missing_folder(path)) or str(exc.strerror)
