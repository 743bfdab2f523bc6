"""The daemon's own source in memory. A failed upgrade returns to it, because an installer may have replaced the files.

Runs nothing. The source is a zip archive (APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16), because Python imports from
zip archives. Written without compression and without `zipfile`, which would cost the daemon 6 ms and half a MiB.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from struct import Struct
from typing import BinaryIO

__all__ = ["SourceArchive", "is_archive"]

_LOCAL = Struct("<4s5H3L2H")
_CENTRAL = Struct("<4s6H3L5H2L")
_END = Struct("<4s4H2LH")
_NEEDED = 20  # version 2.0 of the format: folders
_DATE = 1 << 5 | 1  # 1980-01-01, the first of the format
_MOST = 16 << 20
"""Limit of the source in bytes; srvd has less than one MiB."""

_FOLDER = "/proc/self/fd/"


class SourceArchive:
    """Owns a memfd. It is opened at the start, so `fill` does not change the number of open descriptors."""

    def __init__(self, fd: int = -1) -> None:
        """`fd`: a descriptor that was handed over; -1: make one. Raises `OSError`."""
        self.fd = fd if fd >= 0 else os.memfd_create("srvd-program", os.MFD_CLOEXEC)

    @property
    def path(self) -> str:
        """The entry for `sys.path` to import from the archive, also after an exec; "" while the archive is empty."""
        return f"{_FOLDER}{self.fd}" if os.fstat(self.fd).st_size else ""

    def fill(self, folder: str, before: float) -> None:
        """Fill the archive with the package in `folder`; empty it if a file is newer than this process or unreadable.

        before: Unix seconds; files written later are of another program."""
        self.empty()
        try:
            with open(self.fd, "wb", closefd=False) as archive:
                archive.seek(0)
                _write(archive, _read(os.path.join(folder, "srvd"), before))
        except OSError:
            self.empty()

    def empty(self) -> None:
        """Empty the archive: no upgrade returns to the program in it."""
        os.ftruncate(self.fd, 0)


def is_archive(folder: str) -> bool:
    """Whether `folder` is a `SourceArchive.path`."""
    return folder.startswith(_FOLDER)


def _read(package: str, before: float) -> Iterable[tuple[str, bytes]]:
    """Yield names in the archive and contents. Raises `OSError`, also if a file is too new, or there are too many bytes
    or no files."""
    left = _MOST
    above = os.path.dirname(package)
    for folder, folders, names in os.walk(package, onerror=_fail):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = os.path.join(folder, name)
            if not name.endswith(".py"):
                continue
            with open(path, "rb") as file:
                about = os.fstat(file.fileno())
                left -= about.st_size
                if left < 0:
                    raise OSError(f"{package} has more than {_MOST} bytes")
                data = file.read(about.st_size)
                if os.fstat(file.fileno()).st_mtime > before:
                    raise OSError(f"{path} is newer than this process")
            yield os.path.relpath(path, above), data
    if left == _MOST:
        raise FileNotFoundError(package)


def _fail(problem: OSError) -> None:
    """Raise what `os.walk` would pass over: a folder that an installer removes at this moment would be left out."""
    raise problem


def _write(archive: BinaryIO, files: Iterable[tuple[str, bytes]]) -> None:
    """Write one file after the other: the whole source in memory would cost the daemon 7 MiB for good, since the heap
    does not shrink again."""
    central = bytearray()
    count = 0
    for path, data in files:
        name = os.fsencode(path)
        facts = (zlib.crc32(data), len(data), len(data), len(name))
        at = archive.tell()
        archive.write(_LOCAL.pack(b"PK\3\4", _NEEDED, 0, 0, 0, _DATE, *facts, 0) + name + data)
        central += _CENTRAL.pack(b"PK\1\2", _NEEDED, _NEEDED, 0, 0, 0, _DATE, *facts, 0, 0, 0, 0, 0, at) + name
        count += 1
    at = archive.tell()
    archive.write(central + _END.pack(b"PK\5\6", 0, 0, count, count, len(central), at, 0))
