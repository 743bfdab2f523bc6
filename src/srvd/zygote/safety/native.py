"""Names a thread for a person: by Python's name, by the library whose code the thread began in, or by the kernel's.

Ends no thread, and judges none.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from srvd.record import Record

__all__ = ["name_of", "python_threads"]

_HASH = re.compile(r"-[0-9a-f]{8}(?=\.so)")  # auditwheel adds a hash to the names of libraries in wheels
_LIBC = re.compile(r"(libc|libpthread|ld-linux[\w-]*|ld-musl[\w-]*|libstdc\+\+|libgcc_s|libc\+\+)\b")
"""Libraries in which threads of all other libraries begin."""

_MOST = 1 << 20
"""Bytes of a stack that are searched, from the end."""


class _Area(Record):
    """One line of /proc/self/maps."""

    start: int
    end: int
    runs: bool
    path: str


def python_threads() -> dict[int, str]:
    """The names of the threads that `threading` knows, by their kernel ids, without the main thread."""
    threading = sys.modules.get("threading")
    if threading is None:
        return {}
    main = threading.main_thread()
    return {int(one.native_id or 0): str(one.name) for one in threading.enumerate() if one is not main}


def name_of(task: int) -> str:
    """The name of a thread, by its kernel id: "poller", "of libgomp", "grpc_timer of cygrpc", "of C code"."""
    named = python_threads().get(task)
    if named is not None:
        return named
    comm, inherited = _comm(task), _comm(os.getpid())
    own = "" if comm == inherited else f"{comm} "  # given by a library
    return f"{own}of {_library(task) or 'C code'}"


def _comm(task: int) -> str:
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _library(task: int) -> str:
    """The library whose function the thread was started with; "" if unknown.

    A waiting thread's stack pointer is in /proc/self/task/TASK/syscall (proc_pid_syscall(5)). At the other end of that
    stack the C library keeps the address of the function that the thread began with, and the first frames follow. The
    first word from that end that points into the code of a library, other than the C library, names the library.
    """
    try:
        with open(f"/proc/self/task/{task}/syscall", encoding="utf-8") as file:
            pointer = int(file.read().split()[-2], 16)
        areas = list(_areas())
        stack = _at(areas, pointer)
        if stack is None:
            return ""
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            start = max(pointer & ~7, stack.end - _MOST)
            memory.seek(start)
            words = memory.read(stack.end - start)
    except (OSError, ValueError, IndexError):  # the thread runs just now, or the kernel does not tell
        return ""
    code = [area for area in areas if area.runs and area.path.startswith("/")]
    return _first_library(words, code)


def _first_library(words: bytes, code: list[_Area]) -> str:
    for (word,) in reversed(list(struct.iter_unpack("Q", words[: len(words) // 8 * 8]))):
        area = _at(code, word)
        if area is not None and not _LIBC.match(os.path.basename(area.path)):
            name = _HASH.sub("", os.path.basename(area.path))
            return "Python" if name.startswith(("python", "libpython")) else name.partition(".so")[0]
    return ""


def _at(areas: list[_Area], address: int) -> _Area | None:
    place = bisect_right(areas, address, key=lambda area: area.start) - 1
    return areas[place] if place >= 0 and address < areas[place].end else None


def _areas() -> Iterator[_Area]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        lines: Iterable[list[str]] = (line.split(None, 5) for line in file)
        for fields in lines:
            start, _, end = fields[0].partition("-")
            path = fields[5].strip() if len(fields) > 5 else ""
            yield _Area(int(start, 16), int(end, 16), "x" in fields[1], path)
