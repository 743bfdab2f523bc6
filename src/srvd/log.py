"""The one logger of the daemon and its workers: a sentence becomes a line, and a line is one write.

Knows no files, no rotation and no hierarchy. Never blocks and never raises: when the reader is too slow, or the disk is
full, lines are lost. They are counted, and the next line that can be written says how many.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from select import POLLOUT
from select import poll as make_poll
from threading import RLock
from typing import Final

__all__ = ["LEVELS", "Fields", "Log", "escape", "priorities"]

LEVELS: Final = ("debug", "info", "warning", "error")

LONGEST: Final = 8192
"""The longest line, in bytes with its line break."""

LONGEST_ATOMIC: Final = 4096
"""The longest line to a pipe: PIPE_BUF. A longer one may be mixed with others', and may block in spite of poll(2)."""

Fields = tuple[tuple[str, str | int | float], ...]
"""What a program wants to know about a line. Written in JSON only: the sentence tells it to people."""

_COLOURS: Final = {"debug": "\x1b[2m", "info": "", "warning": "\x1b[33m", "error": "\x1b[31m"}
_PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}  # sd-daemon(3)
_WORDS: Final = {"debug": "DEBUG", "info": "INFO ", "warning": "WARN ", "error": "ERROR"}

_LEVELS_BY_WORD: Final = {word: level for level, word in _WORDS.items()}
_OWN: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d{3}) (DEBUG|INFO |WARN |ERROR) ", re.ASCII)

_UNSEEN: Final = (
    *range(0x20),  # C0
    *range(0x7F, 0xA0),  # DEL and C1, which steer terminals, too
    *range(0x2028, 0x202F),  # separators of lines and paragraphs; changes of the direction of writing
    *range(0x2066, 0x206A),
)
_ESCAPES: Final = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _UNSEEN} | {
    0x09: "\\t",
    0x0A: "\\n",
    0x0D: "\\r",
}
_JSON_ESCAPES: Final = {code: f"\\u{code:04x}" for code in _UNSEEN} | {0x22: '\\"', 0x5C: "\\\\"}


def escape(text: str) -> str:
    """Escapes what steers a terminal or begins a new line: \\x1b, \\n, \\u202e."""
    return text if text.isprintable() else text.translate(_ESCAPES)


class Log:
    """Writes to one descriptor, which it does not close. For several threads, but not over a fork.

    format: "text", "json" or "auto" (text).
    level: the lowest of `LEVELS` that is written; "critical", which other loggers have above "error", means "error".
    shared: the descriptor may be a terminal, or a pipe to which applications write as well.
    raw: lines that applications printed are written as they are.

    Lines are coloured on terminals, unless NO_COLOR is set, and have priorities for the journal.
    """

    def __init__(
        self,
        fd: int,
        format: str = "auto",  # noqa: A002 — the setting's name
        level: str = "info",
        *,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], int] = time.time_ns,
        shared: bool = False,
        raw: bool = False,
    ) -> None:
        self._raw = raw
        self.lost = 0  # lines since one was last written
        self._output = _Output(fd, shared=shared)
        self._json = format == "json"
        self._least = LEVELS.index("error" if level == "critical" else level)
        self._clock = clock
        self._journal = environ.get("JOURNAL_STREAM", "")
        self._coloured = not environ.get("NO_COLOR") and not self._json
        self._see()
        self._second: tuple[int, str] = (-1, "")
        self._lock = RLock()  # not Lock: a signal handler may log while this thread writes

    def renew(self) -> None:
        """Looks again what kind of file the descriptor is: it may have been replaced."""
        self._output.renew()
        self._see()

    def _see(self) -> None:
        self._colours = _COLOURS if self._output.is_terminal and self._coloured else {}
        self._priorities = priorities(self._output.given, self._journal)

    def debug(self, text: str, fields: Fields = ()) -> None:
        self.write("debug", text, fields)

    def info(self, text: str, fields: Fields = ()) -> None:
        self.write("info", text, fields)

    def warning(self, text: str, fields: Fields = ()) -> None:
        self.write("warning", text, fields)

    def error(self, text: str, fields: Fields = ()) -> None:
        self.write("error", text, fields)

    def write(self, level: str, text: str, fields: Fields = ()) -> None:
        """Writes one line at `level`, one of `LEVELS`; further lines of the text (a traceback) follow, indented."""
        if LEVELS.index(level) < self._least:
            return
        if self._json:
            self._put(level, self._as_json(level, text, fields))
            return
        first, *further = text.rstrip("\n").split("\n") if "\n" in text else (text,)
        self._put(level, self._as_text(level, first))
        for line in further:
            self._put(level, f"    {escape(line)}")

    def captured(self, source: object, text: str) -> None:
        """Writes a line that the process `source` ("web/3#17") printed: `web/3#17 | text`.

        A line in the form of this logger, such as one of a worker's, keeps its level and time. In JSON, a line that is
        an object itself stays one, with its source as a member more.
        """
        own = _OWN.match(text)
        if self._raw and own is None:
            self._counting(lambda: self._output.write(text.encode("utf-8", "backslashreplace")))
            return
        level = _LEVELS_BY_WORD[own[3]] if own else "info"
        if not self._json:
            self._put(level, f"{source} | {escape(text)}")
            return
        if text[:1] == "{" and (merged := _merged(str(source), text)) and len(merged.encode()) < self._output.longest:
            self._put(level, merged)
            return
        stamp = _utc(own[1], own[2]) if own else ""
        self._put(level, self._as_json(level, text[own.end() :] if own else text, (("source", str(source)),), stamp))

    def _put(self, level: str, line: str) -> None:
        self.line(self._priorities.get(level, "") + line)

    def line(self, line: str) -> None:
        """Writes a line (without a line break) as it is: the caller has escaped it (an access log)."""
        self._counting(lambda: self._wrote(line))

    def _counting(self, write: Callable[[], bool]) -> None:
        """Calls `write`, and counts the lines that it could not write."""
        with self._lock:
            if self.lost and self._wrote(self._told_lost()):
                self.lost = 0
            if not write():
                self.lost += 1

    def _wrote(self, line: str) -> bool:
        data = line.encode("utf-8", "backslashreplace")
        longest = self._output.longest
        if len(data) >= longest:  # JSON is cut before it becomes JSON
            data = data[: longest - 10].decode("utf-8", "ignore").encode() + (
                b" ...\x1b[0m" if self._colours else b" ..."
            )
        return self._output.write(data)

    def _told_lost(self) -> str:
        text = f"{self.lost} lines of the log were lost"
        spelled = self._as_json("warning", text, ()) if self._json else self._as_text("warning", text)
        return self._priorities.get("warning", "") + spelled

    def _as_text(self, level: str, text: str) -> str:
        colour = self._colours.get(level, "")
        line = f"{self._stamp(time.localtime, ' ')} {_WORDS[level]} {escape(text)}"
        return f"{colour}{line}\x1b[0m" if colour else line

    def _as_json(self, level: str, text: str, fields: Fields, stamp: str = "") -> str:
        stamp = stamp or self._stamp(time.gmtime, "T") + "Z"
        pairs = [
            f'"time": "{stamp}", "level": "{level}"',
            *(f"{_json(name)}: {_json(value)}" for name, value in fields),
        ]
        head = f'{{{", ".join(pairs)}, "text": '
        while len(line := f"{head}{_json(text)}}}".encode("utf-8", "backslashreplace")) >= self._output.longest:
            if fields and len(head) > self._output.longest // 2:
                return self._as_json(level, text, (), stamp)
            text = f"{text[: len(text) * 3 // 4]}..."
        return line.decode()

    def _stamp(self, broken_down: Callable[[int], time.struct_time], separator: str) -> str:
        """Returns the time to the millisecond; the part before the point is formatted once a second."""
        second, nanoseconds = divmod(self._clock(), 1_000_000_000)
        if self._second[0] != second:
            self._second = (second, time.strftime(f"%Y-%m-%d{separator}%H:%M:%S", broken_down(second)))
        return f"{self._second[1]}.{nanoseconds // 1_000_000:03d}"


class _Output:
    """Where lines go: a descriptor, or, if it is `shared`, the terminal or pipe behind it, opened anew.

    A write never blocks, and a line that was torn is ended before the next one.
    """

    def __init__(self, given: int, *, shared: bool) -> None:
        self.given = given
        self._shared = shared
        self._own = -1
        self._torn = False
        self.renew()

    def renew(self) -> None:
        if self._own >= 0:
            os.close(self._own)
        self._own = _unblocked(self.given) if self._shared else -1
        self._fd = self._own if self._own >= 0 else self.given
        self.longest, self._poll, self.is_terminal = _inspect(self.given)
        if self._own >= 0:
            self._poll = None  # a write to it returns EAGAIN

    def write(self, line: bytes) -> bool:
        """Whether the whole line was written, with its line break."""
        data = b"\n" + line + b"\n" if self._torn else line + b"\n"
        try:
            if self._poll is not None and not self._poll.poll(0):
                return False
            written = os.write(self._fd, data)
        except OSError:  # full (EAGAIN), a full disk (ENOSPC, EDQUOT), no reader (EPIPE, EBADF, EIO): one line less
            return False
        self._torn = written < len(data)
        return not self._torn


def _utc(stamp: str, fraction: str) -> str:
    """Converts the local time of a line to the UTC time of JSON; "" if there is no such time."""
    try:
        at = time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S"))
    except (ValueError, OverflowError):
        return ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}{fraction}Z"


def _merged(source: str, text: str) -> str:
    """Returns the JSON object of an application's line with its source in front; "" if it is no such object."""
    import json  # here: it costs 2 to 10 ms, and a text log never needs it

    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(record, dict) or not text.isprintable():
        return ""
    name = "srvd.source" if "source" in record else "source"
    return f'{{"{name}": {_json(source)}{", " if record else ""}{text[1:].lstrip()}'


def _inspect(fd: int) -> tuple[int, make_poll | None, bool]:
    """Returns the longest line for a descriptor, a poll that tells when it takes one (None: always), and isatty()."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return LONGEST, None, False  # closed: each write will fail, and be counted
    if stat.S_ISREG(mode):
        return LONGEST, None, False
    poll = make_poll()
    poll.register(fd, POLLOUT)
    return LONGEST_ATOMIC if stat.S_ISFIFO(mode) else LONGEST, poll, os.isatty(fd)


def priorities(fd: int, journal: str) -> Mapping[str, str]:
    """Returns the prefixes of lines for the journal, by level; empty if `fd` is not connected to the journal.

    journal: the value of $JOURNAL_STREAM.
    """
    return _PRIORITIES if journal and journal == _stream(fd) else {}


def _stream(fd: int) -> str:
    """Returns device and inode of a descriptor, as $JOURNAL_STREAM has those of the journal's (systemd.exec(5)).

    The variable alone is not enough: a process inherits it also when its output goes elsewhere.
    """
    try:
        entry = os.fstat(fd)
    except OSError:
        return ""
    return f"{entry.st_dev}:{entry.st_ino}"


def _unblocked(fd: int) -> int:
    """Opens the terminal or pipe behind a descriptor again, so that writes do not block; -1: not possible.

    O_NONBLOCK on the descriptor itself would hold for all processes that share it. poll(2) before a write is not
    enough: a terminal with room for one byte is writable, and another process may fill a pipe first.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or os.isatty(fd):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # closed; of another user, as after su(1); no /proc
        return -1
    return -1


def _json(value: str | int | float) -> str:
    # Not json.dumps: importing json costs a worker 2 to 10 ms, and there are only three types.
    if isinstance(value, str):
        return f'"{value.translate(_JSON_ESCAPES)}"'
    return repr(value) if abs(value) < float("inf") else "null"  # also null for NaN
