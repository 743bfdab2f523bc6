"""Notices changes: by inotify, or by looking twice a second where the kernel reports none.

Judges no change: `files.py` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Protocol

from srvd.linux.inotify import Inotify
from srvd.watcher.files import Signature

__all__ = ["Changes", "Polling", "Reported", "choose"]

INTERVAL = 0.5
"""Seconds from one look to the next."""

_REMOTE = re.compile(r"nfs|cifs|smb|9p|fuse|virtiofs|vboxsf|drvfs|prl_fs|fakeowner|grpc")
"""Kinds of file systems whose changes from the other side the kernel does not report."""


class Watched(Protocol):
    """Which files matter: one `Files`, or those of all pools."""

    @property
    def broken(self) -> bool: ...
    def folders(self) -> set[str]: ...
    def concerns(self, path: str) -> bool: ...
    def look(self) -> set[str]: ...
    def extra_state(self) -> dict[str, Signature | None]: ...


class Reported:
    """Changes that the kernel reports."""

    interval = None

    def __init__(self) -> None:
        self._inotify = Inotify()
        self.fd = self._inotify.fd

    def watch(self, files: Watched) -> None:
        """Raises `OSError` if the kernel has no more room."""
        self._inotify.watch(files.folders())

    def take(self, files: Watched) -> set[str]:
        """Returns the paths that have changed and matter."""
        paths = self._inotify.read()
        if paths is None:  # some were lost
            paths = files.look()
        return {path for path in paths if files.concerns(path)}

    def close(self) -> None:
        self._inotify.close()


class Polling:
    """Changes that are looked for."""

    interval = INTERVAL
    fd = -1

    def __init__(self) -> None:
        self._extra: dict[str, Signature | None] | None = None
        self._names: dict[str, int] = {}

    def watch(self, files: Watched) -> None:
        self._extra = files.extra_state()
        self._names = _times(files.folders())

    def take(self, files: Watched) -> set[str]:
        found = files.look()
        former, self._extra = self._extra, files.extra_state()
        if former is not None:
            found |= {path for path in {*former, *self._extra} if former.get(path) != self._extra.get(path)}
        if files.broken:
            names, self._names = self._names, _times(files.folders())
            if any(names.get(folder) != time for folder, time in self._names.items()):
                found |= {f"{folder}/new.py" for folder in self._names if names.get(folder) != self._names[folder]}
        return found

    def close(self) -> None:
        return


Changes = Reported | Polling


def choose(folder: str, environ: dict[str, str], say: Callable[[str], None]) -> Changes:
    """Returns what notices changes below a folder, and says if that is by looking.

    WATCHFILES_FORCE_POLLING is a variable of other servers, for the same reason: a file system of another machine.
    """
    reason = ""
    kind = _file_system(folder)
    if environ.get("WATCHFILES_FORCE_POLLING", "").lower() in ("1", "true", "yes", "on"):
        reason = "WATCHFILES_FORCE_POLLING is set"
    elif _REMOTE.search(kind):
        reason = f"the kernel does not report changes on {kind}"
    else:
        try:
            return Reported()
        except OSError as exc:
            reason = f"inotify cannot be used ({exc.strerror})"
    say(f"{reason}: files are looked at twice a second")
    return Polling()


def _file_system(folder: str) -> str:
    """Returns the kind of the file system that a folder is on; "" if that cannot be told."""
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, place, name, *_ = line.split(" ")
                inside = f"{folder}/".startswith(f"{place.rstrip('/')}/")
                if inside and len(place) >= len(best):
                    best, kind = place, name
    except (OSError, ValueError):
        return ""
    return kind


def _times(folders: set[str]) -> dict[str, int]:
    found = {}
    for folder in folders:
        try:
            found[folder] = os.stat(folder).st_mtime_ns
        except OSError:
            found[folder] = 0
    return found
