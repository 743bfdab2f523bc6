"""Attackers as small programs: what a worker, an application at its import, a pool's user or a local user may try.

Each is text, to be an application (`app.py`) or to be run by an interpreter as another user. Claims nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

__all__ = [
    "ANSWER", "ATTEMPTS", "DICE", "LINGERING", "LINK", "PEER", "ROOT", "SOCKETS", "STRANGER", "abuses_of", "as_user",
    "attempt", "needs_root",
]  # fmt: skip

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

DICE = """
class Dice:
    '''Of its seed alone. Not from `random`: what a zygote has not imported, a pool's user may not be able to read.'''
    def __init__(self, seed):
        self.state = seed * 2654435761 % 2**64 or 1
    def number(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return self.state >> 24
    def randrange(self, most):
        return self.number() % most
    def random(self):
        return self.number() % 1000 / 1000
    def choice(self, of):
        return of[self.randrange(len(of))]
    def randbytes(self, count):
        return b"".join(self.number().to_bytes(8, "little")[:5] for _ in range(count // 5 + 1))[:count]
"""

SOCKETS = """
import os, socket
def open_sockets(family, kind):
    '''All sockets of this family and type that the process has: the number of each, and another descriptor of it.'''
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        if (sock.family, sock.type) == (family, kind):
            yield fd, sock
        else:
            sock.close()
"""

LINK = (
    SOCKETS
    + """
def links():
    '''Its links to the daemon, or the zygote's.'''
    for _, sock in open_sockets(socket.AF_UNIX, socket.SOCK_SEQPACKET):
        yield sock
"""
)

ATTEMPTS = """
import os, socket, struct, sys, time
tried = []
def refused(what, act, *given):
    '''What the system must refuse; `what` names it where it does not.'''
    tried.append(what)
    try:
        act(*given)
    except OSError:
        return
    print("LEAK:", what, flush=True)
def must(claim, what):
    tried.append(what)
    if not claim:
        print("LEAK:", what, flush=True)
"""
"""What an attacker claims about its own attempts: `LEAK` is printed where one had an effect."""

PEER = """
def pack(value):
    '''msgpack, by hand: the attacker needs nothing of srvd.'''
    if value is None or isinstance(value, bool):
        return {None: b"\\xc0", False: b"\\xc2", True: b"\\xc3"}[value]
    if isinstance(value, int):
        return b"\\xcf" + value.to_bytes(8, "big") if value >= 0 else b"\\xd3" + value.to_bytes(8, "big", signed=True)
    if isinstance(value, float):
        return b"\\xcb" + struct.pack(">d", value)
    if isinstance(value, bytes):  # packed already
        return value
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"\\xdb" + len(text).to_bytes(4, "big") + text
    if isinstance(value, list):
        return b"\\xdd" + len(value).to_bytes(4, "big") + b"".join(map(pack, value))
    return b"\\xdf" + len(value).to_bytes(4, "big") + b"".join(pack(key) + pack(of) for key, of in value.items())
def framed(body):
    return len(body).to_bytes(4, "big") + body
def request(method, number=1, **args):
    return framed(pack({"type": "req", "id": number, "method": method, "args": args}))
class Peer:
    '''One connection to the control socket; `hello` is the first frame, b"" if there was none.'''
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)  # blocking: where the backlog is full it waits its turn
        self.sock.settimeout(30)
        self.buffer = b""
        self.hello = self.frame()
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.sock.close()
    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:  # it has ended the connection
            pass
    def read(self, count):
        while len(self.buffer) < count:
            try:
                more = self.sock.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                return b""
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken
    def frame(self):
        return self.read(int.from_bytes(self.read(4), "big"))
    def ask(self, method, **args):
        '''The answer, still packed: texts are in it as they are.'''
        self.send(request(method, **args))
        while b"progress" in (got := self.frame())[:40]:
            pass
        return got
    def rest(self):
        '''All that comes before the end of the connection.'''
        got = b""
        while frame := self.frame():
            got += frame
        return got
def seat(path):
    '''A connection that was given a seat: those that come too fast are told to wait.'''
    until = time.monotonic() + 30
    while True:
        peer = Peer(path)
        if b"hello" in peer.hello[:40] or time.monotonic() > until:
            return peer
        peer.sock.close()
        time.sleep(0.1)
"""
"""A peer of the control socket. Needs ATTEMPTS."""

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
        start_new_session=True,  # in one's own session SIGCONT may be sent to all
    )  # fmt: skip


def abuses_of(table: str) -> tuple[str, ...]:
    """Names of the functions `CHANNEL__ABUSE(dice)` of a table."""
    return tuple(re.findall(r"^def (\w+__\w+)\(dice\)", table, re.MULTILINE))


def attempt(uid: int, program: str, abuse: str, *arguments: str, within: float = 120) -> str:
    """Runs one abuse of a program with ATTEMPTS as this user, to its end; what it printed.

    Raises `AssertionError`: it had an effect, tried nothing, or did not come to its end.
    """
    code = f"{program}\n{abuse}(Dice(1))\nprint('over', len(tried), flush=True)\n"
    with as_user(uid, code, *arguments) as attacker:
        try:
            said, _ = attacker.communicate(timeout=within)
        except subprocess.TimeoutExpired:
            attacker.kill()
            said = attacker.communicate()[0] + f"not over after {within} s"
    assert "LEAK" not in said, said
    assert "Traceback" not in said, said  # also of a thread
    assert re.search(r"^over [1-9]", said, re.MULTILINE), said
    return said
