"""What the watcher is told at its start.

Reads no configuration: `cli/develop.py` makes this of it.
"""

from __future__ import annotations

from srvd.record import Record

__all__ = ["Setup"]


class Setup(Record):
    """pools: the pools under development, each a list of its mode (`on`, `safe`) and its `reload_extra`."""

    name: str  # of the instance
    socket: str  # the control socket; "": found by the name
    daemon: int  # pid
    folder: str  # in which the daemon was started
    config: str  # the file of the configuration; "": none
    pools: dict[str, list[list[str] | str]]
    terminal: str  # path; "": the application gets none
    uids: list[int]  # of the processes that may connect
    about: str  # for the first line: "http://127.0.0.1:8000 serves shop:app"
