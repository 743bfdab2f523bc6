"""`srvctl` in a process of its own, without the start of an interpreter, which costs ten times what a command does.

A server that has imported srvctl forks for each command, as a zygote does for workers. That an interpreter starts
srvctl is claimed by the tests that call the installed program. Not for terminals: see `tests/ctl/test_terminal.py`.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from srvd.ctl import main as program

_INTERPRETER = ("PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONIOENCODING", "LANG", "LANGUAGE")
"""Variables, besides those of locales, that an interpreter reads when it starts: they cannot be changed by a fork."""

_LARGEST = 1 << 17
"""Bytes of a request: words and environment."""


def run_srvctl(
    words: Sequence[str], env: Mapping[str, str], cwd: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """What `srvctl WORDS` printed, and its exit code. timeout: seconds, then it is killed, and `TimeoutExpired`."""
    if _of_interpreter(env) != _of_interpreter(os.environ):
        command = [str(Path(sys.executable).with_name("srvctl")), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, cwd=cwd)
    request = json.dumps({"words": list(words), "env": dict(env), "cwd": str(cwd or Path.cwd())}).encode()
    ours, theirs = socket.socketpair()
    with ours, os.fdopen(os.memfd_create("out"), "r+") as out, os.fdopen(os.memfd_create("err"), "r+") as err:
        with theirs:
            socket.send_fds(server(), [request], [out.fileno(), err.fileno(), theirs.fileno()])
        code = _exit_code(ours, ["srvctl", *words], timeout)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(["srvctl", *words], code, out.read(), err.read())


def _of_interpreter(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name in _INTERPRETER or name.startswith("LC_")}


def _exit_code(answer: socket.socket, command: list[str], timeout: float) -> int:
    """The process says its pid when it begins, and its exit code when it ends."""
    deadline = time.monotonic() + timeout
    said = array.array("i")
    while len(said) < 2:
        if not select.select([answer], [], [], max(0.0, deadline - time.monotonic()))[0]:
            for pid in said:
                os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout)
        data = answer.recv(4)
        assert data, f"{command} was killed"
        said.frombytes(data)
    return said[1]


@cache
def server() -> socket.socket:
    """Where requests are sent. The server ends when this process has closed it, or has ended."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    process.returncode = 0  # it is not waited for: it ends with us
    return ours


def _serve(requests: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        request, fds, _, _ = socket.recv_fds(requests, _LARGEST, 3)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _become(request, *fds)
        for fd in fds:
            os.close(fd)


def _become(request: bytes, out: int, err: int, answer: int) -> None:
    """Is srvctl from here on, and does not return."""
    asked = json.loads(request)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    sys.argv[1:] = asked["words"]
    os.write(answer, array.array("i", [os.getpid()]))
    code = 1
    try:
        program.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(answer, array.array("i", [code]))
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
