"""Tells whether a start could write the files of a configuration: `srvd check`.

Opens none and makes none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from srvd.config.settings import Config
from srvd.daemon.files import missing_folder
from srvd.errors import SystemRefused
from srvd.linux import trust

__all__ = ["look_at_files"]


def look_at_files(config: Config) -> Iterator[SystemRefused]:
    """Yield the errors with which a start would refuse the log file and the pidfile."""
    for what, path in (("open the log", config.daemon.log_file), ("write the pidfile", config.daemon.pidfile)):
        problem = _unwritable(path) if path else ""
        if problem:
            yield SystemRefused(f"{what} {path}: {problem}")


def _unwritable(path: str) -> str:
    """Return why this user cannot write the file; "" if the user can. Creates nothing."""
    folder = os.path.dirname(path) or "."
    try:
        trust.settle(path)
    except PermissionError as exc:
        return exc.strerror or str(exc)
    except OSError:  # reported below
        pass
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return "Is a directory"
        return "" if os.access(path, os.W_OK) else "Permission denied"
    except OSError:
        return missing_folder(path) or ("" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied")
