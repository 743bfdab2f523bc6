"""A service manager as a daemon sees it: the notify socket, the fd store, sockets that are passed at the start.

No systemd: what that does with it is tested in system/test_systemd_container.py.
"""

from __future__ import annotations

import array
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.daemon import BOOT, Srvd
from tests.support.waiting import wait_for

_CREDENTIALS = struct.Struct("iII")  # struct ucred: unix(7)

_LAUNCHER = """
import os, sys
fds, names, command = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
high = [os.dup(int(fd)) for fd in fds]
while any(fd < 3 + len(fds) for fd in high):
    high = [os.dup(fd) for fd in high]
for number, fd in enumerate(high, 3):
    os.dup2(fd, number)
os.closerange(3 + len(fds), 1024)
os.environ |= {"LISTEN_FDS": str(len(fds)), "LISTEN_PID": str(os.getpid())}
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(command[0], command)
"""
"""What a service manager does between fork and exec: descriptors from 3 on, without close-on-exec."""


@dataclass(frozen=True)
class Notice:
    """One datagram."""

    pid: int  # of the sender, by the kernel's word
    lines: tuple[str, ...]
    fds: tuple[int, ...]

    def __getitem__(self, name: str) -> str:
        """What is assigned to the name; "" if nothing is."""
        return next((line.partition("=")[2] for line in self.lines if line.startswith(f"{name}=")), "")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class ServiceManager:
    """Listens at a path or in the abstract namespace, and remembers all it heard. Use it as a context."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self._open(f"@srvd-test-{os.getpid()}-{folder.name}" if abstract else str(folder / "notify"))

    @classmethod
    def at(cls, path: Path) -> Self:
        """One that comes late, and listens at this path."""
        manager = cls.__new__(cls)
        manager._open(str(path))
        return manager

    def _open(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.heard: list[Notice] = []
        self.store: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        for fd in self.store.values():
            os.close(fd)

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address}

    def listen(self) -> list[Notice]:
        """All that was heard until now."""
        while True:
            try:
                data, cargo, _, _ = self.socket.recvmsg(65536, 1024, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return self.heard
            pid, fds = 0, array.array("i")
            for _, kind, content in cargo:
                if kind == socket.SCM_RIGHTS:
                    fds.frombytes(content)
                elif kind == socket.SCM_CREDENTIALS:
                    pid = _CREDENTIALS.unpack(content)[0]
            notice = Notice(pid, tuple(data.decode().split("\n")), tuple(fds))
            self.heard.append(notice)
            self._keep(notice)

    def wait(self, claim: Callable[[Notice], object], after: int = 0, within: float = BOOT) -> int:
        """The place of the first notice, from `after` on, of which the claim is true."""

        def look() -> int:
            return next((place for place, one in enumerate(self.listen()) if place >= after and claim(one)), -1) + 1

        try:
            return wait_for(look, within) - 1
        except AssertionError:
            told = "\n".join(one.text for one in self.heard)
            msg = f"not told within {within} s; what was:\n{told}"
            raise AssertionError(msg) from None

    def wait_line(self, line: str, after: int = 0) -> int:
        return self.wait(lambda one: line in one.lines, after)

    @property
    def status(self) -> str:
        """The last sentence."""
        return next((one["STATUS"] for one in reversed(self.listen()) if one["STATUS"]), "")

    @property
    def listeners(self) -> dict[str, int]:
        """Those in the store."""
        self.listen()
        return {name: fd for name, fd in self.store.items() if name.startswith("srvd/listener/")}

    def _keep(self, notice: Notice) -> None:
        if "FDSTORE=1" in notice.lines:
            (self.store[notice["FDNAME"]],) = notice.fds
        elif "FDSTOREREMOVE=1" in notice.lines:
            os.close(self.store.pop(notice["FDNAME"]))


def passing(srvd: Srvd, fds: Sequence[int], names: str = "") -> Srvd:
    """The same daemon, started with these descriptors as a service manager passes them."""
    srvd.pass_fds = tuple(fds)
    launcher = [sys.executable, "-c", _LAUNCHER, ",".join(map(str, fds)), names]
    srvd.command = [*launcher, *srvd.command]
    return srvd
