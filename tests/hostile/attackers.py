"""Attackers as small programs: what a worker, an application at its import, a pool's user or a local user may try.

Each is text, to be an application (`app.py`) or to be run by an interpreter as another user. Claims nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

__all__ = ["ANSWER", "LINGERING", "LINK", "ROOT", "STRANGER", "as_user", "needs_root"]

ROOT = os.geteuid() == 0

needs_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")

STRANGER = 61_000 + os.getpid() % 4_000
"""A uid that nobody has: a local user without any role."""

LINGERING = """
import array, os, socket, struct, sys, time
def lingering(seconds=60):
    '''A TCP socket with unsent data whose last close waits so long.'''
    server = socket.create_server(("127.0.0.1", 0))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ours = socket.socket()
    ours.connect(server.getsockname())  # create_connection wants encodings that a pool's user may not be able to read
    theirs, _ = server.accept()
    ours.setblocking(False)
    try:
        while True:
            ours.send(bytes(65536))
    except BlockingIOError:
        pass
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    return ours, (server, theirs)
def passes(link, datagram, fd):
    '''Whether the kernel lets it pass the descriptor.'''
    try:
        link.sendmsg([datagram], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    except OSError:
        return False
    return True
"""

LINK = """
import os, socket
def links():
    '''Its links to the daemon, or the zygote's: all SOCK_SEQPACKET sockets that there are.'''
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_SEQPACKET:
            yield sock
        else:
            sock.close()
"""

ANSWER = """
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {attack(environ)}".encode()]
"""


def as_user(uid: int, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Runs a program as this user, with an interpreter that everybody may run."""
    python = sys.executable if uid == os.geteuid() else "/usr/bin/python3"
    if not os.access(python, os.X_OK):
        pytest.skip(f"there is no {python}, which other users may run")
    return subprocess.Popen(
        [python, "-I", "-c", code, *arguments],
        user=uid, group=uid if ROOT else None, extra_groups=[] if ROOT else None,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
    )  # fmt: skip
