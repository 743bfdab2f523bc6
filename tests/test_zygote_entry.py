"""Claims about the entry of a zygote: its name, its arguments and descriptors are those of the first release.

The daemon that starts a zygote may be of any other version. A test that fails here says that such a daemon could not
start one, or would not be told why not.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest

from srvd import _zygote_entry
from srvd.linux import interpreter
from srvd.wire import links
from tests.conftest import Starter
from tests.support.daemon import BOOT
from tests.support.srvd_versions import Versions

FIRST_COMMAND = "from srvd._zygote_entry import live; live()"
"""What the daemon of the first release has an interpreter run. It never changes here."""

LINK, OUTPUT = 3, 4

CALL = "    main.live()\n"
RECORDS = """\
    import json, msgpack, os, socket, stat, sys
    link = socket.socket(fileno=os.dup(int(sys.argv[1])))
    first = msgpack.unpackb(link.recv(1 << 17, socket.MSG_PEEK))
    kinds = {fd: stat.S_IFMT(os.fstat(fd).st_mode) for fd in range(5)}
    inodes = {fd: os.fstat(fd).st_ino for fd in range(5)}
    with open("PATH", "w") as file:
        json.dump({"argv": sys.argv, "orig": sys.orig_argv[1:3], "type": link.type, "name": first[0],
                   "protocol": first[-1], "kinds": kinds, "inodes": inodes, "leads": os.getsid(0) == os.getpid()}, file)
"""


def test_the_entry_has_the_name_of_the_first_release_and_takes_nothing() -> None:
    assert _zygote_entry.__name__ == "srvd._zygote_entry"
    assert list(inspect.signature(_zygote_entry.live).parameters) == []
    assert interpreter._COMMAND == FIRST_COMMAND


@pytest.mark.system
def test_the_entry_is_given_what_the_first_release_gives(starter: Starter, tmp_path: Path) -> None:
    versions = Versions(tmp_path / "versions")
    record = tmp_path / "record"
    entry = (CALL, RECORDS.replace("PATH", str(record)) + CALL)
    versions.install("1.0", {"_zygote_entry.py": entry, "linux/interpreter.py": (interpreter._COMMAND, FIRST_COMMAND)})
    srvd = starter("--workers", "1", env=versions.env)
    assert srvd.get().startswith("one ")
    found: dict[str, Any] = json.loads(record.read_text())
    assert (found["argv"], found["orig"]) == (["-c", str(LINK)], ["-P", "-c"])
    assert found["type"] == socket.SOCK_SEQPACKET
    assert (found["name"], found["protocol"]) == ("Load", links.PROTOCOL)
    assert found["leads"]
    kinds = {int(fd): kind for fd, kind in found["kinds"].items()}
    assert [kinds[fd] for fd in (0, 1, 2, LINK)] == [stat.S_IFCHR, stat.S_IFIFO, stat.S_IFIFO, stat.S_IFSOCK]
    inodes = {int(fd): inode for fd, inode in found["inodes"].items()}
    assert inodes[1] == inodes[2]
    assert inodes[0] == os.stat(os.devnull).st_ino
    assert inodes[OUTPUT] == srvd.log.stat().st_ino  # the daemon's standard output


def test_a_zygote_that_does_not_understand_answers_as_the_first_release_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interpreter, "_COMMAND", FIRST_COMMAND)
    zygote = interpreter.start(sys.executable, {})
    with zygote.link as link, open(zygote.stderr, "rb"):
        link.settimeout(BOOT)
        try:
            link.send(msgpack.packb(["Load", "of a later version"]))
            name, reason, hint, proof = msgpack.unpackb(link.recv(1 << 17))
            assert link.recv(1) == b""
        finally:
            signal.pidfd_send_signal(zygote.pidfd, signal.SIGKILL)
            os.waitpid(zygote.pid, 0)
            os.close(zygote.pidfd)
    assert name == "LoadFailed"
    assert "do not understand each other" in reason
    assert "srvctl upgrade" in hint
    assert isinstance(proof, str)
