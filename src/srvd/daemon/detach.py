"""Puts the daemon into the background (`--daemonize`), while the command that started it waits for the result.

Knows nothing of pools: the announcer reports "ready" or the error.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable

from srvd.config.settings import DaemonSettings
from srvd.errors import EXIT
from srvd.log import Log, escape

_PID = 8
"""Bytes of the daemon's pid in the pipe, before the result."""


class StartReport:
    """The daemon's end of the pipe to the waiting command; no pipe without `--daemonize`."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def ready(self, text: str) -> None:
        """Report success. `text`: for a person, the only output of a daemon that goes into the background."""
        self._say(EXIT.DONE, text)

    def failed(self, code: int, text: str, hint: str = "") -> None:
        """Report a failure. Has no effect after an earlier report."""
        self._say(code, f"error: {text}" + (f"\nhint: {hint}" if hint else ""))

    def _say(self, code: int, text: str) -> None:
        if self._fd is None:
            return
        data = bytes([code]) + text.encode("utf-8", "backslashreplace")[:60_000]
        with contextlib.suppress(BrokenPipeError):  # the waiting command has ended; the daemon goes on
            os.write(self._fd, data)  # below a pipe's 64 KiB: never blocks
        os.close(self._fd)
        self._fd = None


def detach(announce: Callable[[int], None]) -> tuple[StartReport, int | None]:
    """Fork twice (daemon(7)). Returns in the daemon the report to be given, in the first process its exit code.

    Call it before any thread, loop or child exists. `announce` is called in the first process with the daemon's pid,
    before the daemon does anything: a service manager accepts messages from the process that it started, and from
    another one only after the first one has named it.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    wait, go = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(writer)
        os.close(wait)
        return StartReport(None), _await(reader, go, pid, announce)
    os.close(reader)
    os.close(go)
    os.setsid()
    if os.fork():  # the daemon must not be a session leader, so that it gets no terminal
        os._exit(EXIT.DONE)
    # Closed now: zygotes and workers would inherit standard output, and keep the pipe of `$(srvd start …)` open.
    _let_go(0, 1)
    os.write(writer, os.getpid().to_bytes(_PID, "big"))
    os.read(wait, 1)  # returns at end of file, also if the waiting command was killed
    os.close(wait)
    return StartReport(writer), None


def greeting(settings: DaemonSettings, urls: str) -> str:
    """Return the output of a command that has started a daemon."""
    asking = f"-s {settings.socket}" if settings.socket else f"-n {settings.name}"
    where = f"serves {urls}" if urls else "serves no address"
    return f"daemon {settings.name}, pid {os.getpid()}, {where}; `srvctl {asking} status` asks it"


def say_where(log: Log, urls: str) -> None:
    """Log the addresses as the last line of a start at a terminal."""
    if os.isatty(2):
        log.info(f"serving {urls or 'no address'}; ^C stops")


def leave_terminal() -> None:
    """Close standard error before the report: the reader of the command's output must see end of file."""
    _let_go(2)


def _let_go(*fds: int) -> None:
    """Replace terminals and pipes by /dev/null; a regular file stays, because the output was redirected on purpose."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.dup2(null, fd)
    os.close(null)


def _await(reader: int, go: int, pid: int, announce: Callable[[int], None]) -> int:
    os.waitpid(pid, 0)
    number = os.read(reader, _PID)  # one write, shorter than PIPE_BUF: all of it or none
    if number:
        announce(int.from_bytes(number, "big"))
    os.close(go)
    data = b""
    while chunk := os.read(reader, 65_536):
        data += chunk
    os.close(reader)
    if not data:
        sys.stderr.write("error: the daemon ended before it was ready and left no word\n")
        return EXIT.FAILED
    stream = sys.stdout if data[0] == EXIT.DONE else sys.stderr
    for line in data[1:].decode("utf-8", "replace").rstrip("\n").split("\n") if data[1:] else ():
        stream.write(f"{escape(line)}\n")  # an application's traceback may hold anything
    stream.flush()
    return data[0]
