"""Which functions of srvd run in which process while a window is open: of real daemons, zygotes, workers and srvctl.

The recorder itself is recorder/sitecustomize.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOOK = Path(__file__).with_name("recorder")


class Call(NamedTuple):
    """The first call of a function in a window."""

    pid: int
    saves: bool  # beneath the file of the state: it runs in order to save it
    path: str  # under src/srvd
    function: str  # its qualified name; of a function in a function, the outer one's


class Recording:
    """Made before the processes that are recorded, which get `env`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._window = 0
        self.env = {"PYTHONPATH": str(HOOK), "RECORDER_FOLDER": str(folder)}
        folder.mkdir()
        (folder / "calls").touch()
        (folder / "window").write_bytes(bytes(8))

    @contextlib.contextmanager
    def window(self) -> Iterator[None]:
        """Calls are noted up to the end of the block."""
        self._window += 1
        self._open(self._window)
        try:
            yield
        finally:
            self._open(0)

    def calls(self) -> list[Call]:
        """Those of the last window, in their order."""
        lines = [line.split(" ", 3) for line in (self._folder / "calls").read_text().splitlines()]
        return [
            Call(int(pid), kind == "saves", *_parted(name))
            for window, pid, kind, name in lines
            if int(window) == self._window
        ]

    def _open(self, window: int) -> None:
        with (self._folder / "window").open("r+b") as file:
            file.write(window.to_bytes(8, "little"))


def _parted(name: str) -> tuple[str, str]:
    path, _, function = name.partition(":")
    return path, function.partition(".<locals>")[0]
