"""The daemon's own source in memory: an installer may replace the files, and they are what a failed upgrade returns to.

Runs nothing. A zip archive (APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16), because Python imports from one by itself;
without compression, written by hand: `zipfile` would cost the daemon 6 ms and half a MiB for its whole life.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from struct import Struct

__all__ = ["SourceArchive", "is_archive"]

_LOCAL = Struct("<4s5H3L2H")
_CENTRAL = Struct("<4s6H3L5H2L")
_END = Struct("<4s4H2LH")
_NEEDED = 20  # version 2.0 of the format: folders
_DATE = 1 << 5 | 1  # 1980-01-01, the first there is
_MOST = 16 << 20
"""Bytes of source that are kept; srvd has less than one MiB."""

_FOLDER = "/proc/self/fd/"


class SourceArchive:
    """Owns a descriptor. It is opened for an empty file at the start, so the number of descriptors stays the same."""

    def __init__(self, fd: int = -1) -> None:
        """`fd`: one that was handed over. Raises `OSError`."""
        self.fd = fd if fd >= 0 else os.memfd_create("srvd-program", os.MFD_CLOEXEC)

    @property
    def path(self) -> str:
        """What to put on `sys.path` to import from it, also after an exec; "" while it is empty."""
        return f"{_FOLDER}{self.fd}" if os.fstat(self.fd).st_size else ""

    def fill(self, folder: str, before: float) -> None:
        """With the package in `folder`. It becomes empty if its files are not what runs here (any more), or cannot be
        read. `before`: Unix seconds; what was written later is another program's."""
        try:
            data = _archive(list(_read(os.path.join(folder, "srvd"), before)))
        except OSError:
            data = b""
        self.empty()
        os.pwrite(self.fd, data, 0)

    def empty(self) -> None:
        """What was kept is of a program that will not be returned to."""
        os.ftruncate(self.fd, 0)


def is_archive(folder: str) -> bool:
    """Whether that is a `SourceArchive.path`."""
    return folder.startswith(_FOLDER)


def _read(package: str, before: float) -> Iterable[tuple[str, bytes]]:
    """Names in the archive and contents. Raises `OSError`, also for files that are too new, too many or none."""
    left = _MOST
    above = os.path.dirname(package)
    for folder, folders, names in os.walk(package):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = os.path.join(folder, name)
            if not name.endswith(".py"):
                continue
            with open(path, "rb") as file:
                data = file.read(left + 1)
                if os.fstat(file.fileno()).st_mtime > before:
                    raise OSError(f"{path} is newer than this process")
            left -= len(data)
            if left < 0:
                raise OSError(f"{package} has more than {_MOST} bytes")
            yield os.path.relpath(path, above), data
    if left == _MOST:
        raise FileNotFoundError(package)


def _archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    body = bytearray()
    central = bytearray()
    count = 0
    for path, data in files:
        name = path.encode()
        facts = (zlib.crc32(data), len(data), len(data), len(name))
        at = len(body)
        body += _LOCAL.pack(b"PK\3\4", _NEEDED, 0, 0, 0, _DATE, *facts, 0) + name + data
        central += _CENTRAL.pack(b"PK\1\2", _NEEDED, _NEEDED, 0, 0, 0, _DATE, *facts, 0, 0, 0, 0, 0, at) + name
        count += 1
    return bytes(body + central + _END.pack(b"PK\5\6", 0, 0, count, count, len(central), len(body), 0))
