"""Checks whether root may write to a path: only if no other user can replace a folder or a link on the way.

Opens nothing. A process of any other user may write to every path that the kernel lets it.
"""

from __future__ import annotations

import os
import stat

__all__ = ["settle"]

_MOST = 40  # links on the way, the most that the kernel follows (path_resolution(7))
_MADE_BY_THE_KERNEL = ("/dev/", "/proc/")


def settle(path: str) -> str:
    """Returns the path without links if this process is root; as it is for other users, and below /dev and /proc.

    Raises `PermissionError` if a folder on the way belongs to another user or is writable by all; `OSError` if the path
    cannot be resolved.
    """
    if not os.path.isabs(path):
        path = os.path.join(os.getcwd(), path)  # not abspath(): the kernel resolves `..` after the links before it
    if os.geteuid() != 0 or (path.startswith(_MADE_BY_THE_KERNEL) and ".." not in path.split("/")):
        return path
    left, here, links = path.strip("/").split("/"), "/", 0
    while left:
        _check(here)
        name = left.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        there = os.path.join(here, name)
        try:
            entry = os.lstat(there)
        except FileNotFoundError:
            if left:
                raise
            return there
        if not stat.S_ISLNK(entry.st_mode):
            here = there
            continue
        links += 1
        if links > _MOST:
            raise OSError(f"more than {_MOST} links lead to {path}")
        target = _follow(there, entry)
        left[:0] = target.strip("/").split("/")
        here = "/" if target.startswith("/") else here
    return here


def _follow(link: str, entry: os.stat_result) -> str:
    """Returns where the link leads. Raises `PermissionError`, in a folder such as /tmp, where every user may make links
    (proc_sys_fs(5), protected_symlinks)."""
    if entry.st_uid != 0:
        raise PermissionError(0, f"the link {link} belongs to uid {entry.st_uid}, and could lead root to any file")
    return os.readlink(link)


def _check(folder: str) -> None:
    entry = os.lstat(folder)
    mode = entry.st_mode
    if entry.st_uid != 0:
        raise PermissionError(0, f"{folder} belongs to uid {entry.st_uid}, which could lead root to any other file")
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise PermissionError(0, f"{folder} is open to everybody, who could lead root to any other file")
