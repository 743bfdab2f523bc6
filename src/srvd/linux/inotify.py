"""Changes in folders, as the kernel reports them (inotify(7)); nothing wakes this process while there are none.

Judges no change: `watcher/` does.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

__all__ = ["Inotify"]

_EVENT = struct.Struct("iIII")
_IN_ATTRIB, _IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO = 0x4, 0x8, 0x40, 0x80
_IN_CREATE, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_IN_Q_OVERFLOW, _IN_IGNORED, _IN_ONLYDIR = 0x4000, 0x8000, 0x01000000
_WANTED = (
    _IN_ATTRIB | _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
    | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
)  # fmt: skip
_CHUNK = 1 << 16


class Inotify:
    """Watches folders, not what is below them. Raises `OSError` where the kernel has no more room (EMFILE, ENOSPC)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._folders: dict[int, set[str]] = {}  # several names may lead to one folder
        self._watches: dict[str, int] = {}

    def close(self) -> None:
        os.close(self.fd)

    def watch(self, folders: Iterable[str]) -> None:
        """Watches these folders and no others; leaves out those that do not exist. Raises `OSError`."""
        wanted = set(folders)
        for folder in self._watches.keys() - wanted:
            self._forget(folder)
        for folder in wanted - self._watches.keys():
            watch = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), ctypes.c_uint32(_WANTED))
            if watch < 0:
                number = ctypes.get_errno()
                if number in (2, 13, 20):  # ENOENT, EACCES, ENOTDIR
                    continue
                raise OSError(number, os.strerror(number), folder)
            self._watches[folder] = watch
            self._folders.setdefault(watch, set()).add(folder)

    def read(self) -> set[str] | None:
        """Returns the paths that have changed, of folders and of what is in them; None: some were lost."""
        paths: set[str] = set()
        lost = False
        while True:
            try:
                data = os.read(self.fd, _CHUNK)
            except BlockingIOError:
                return None if lost else paths
            place = 0
            while place < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, place)
                name = os.fsdecode(data[place + _EVENT.size : place + _EVENT.size + length].rstrip(b"\0"))
                place += _EVENT.size + length
                lost = lost or bool(mask & _IN_Q_OVERFLOW)
                folders = self._folders.get(watch, set())
                paths.update(os.path.join(folder, name) if name else folder for folder in folders)
                if mask & _IN_IGNORED:
                    for folder in self._folders.pop(watch, set()):
                        self._watches.pop(folder, None)

    def _forget(self, folder: str) -> None:
        watch = self._watches.pop(folder)
        folders = self._folders.get(watch, set())
        folders.discard(folder)
        if not folders:
            self._folders.pop(watch, None)
            self._libc.inotify_rm_watch(self.fd, watch)
