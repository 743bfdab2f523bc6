"""Reads facts about a process from /proc: its state, and what it does with a signal.

Knows processes by their pid only, and a pid may be reused: a caller must hold a pidfd, and check it afterwards.
"""

from __future__ import annotations

import os

from srvd.record import Record

__all__ = [
    "STOPPED",
    "TRACED",
    "Reach",
    "children",
    "described",
    "is_ending",
    "parent",
    "processor_time",
    "reach",
    "session",
    "start_time",
    "state",
    "uid",
    "wait_channel",
]

STOPPED = "stopped"
TRACED = "traced"
UNINTERRUPTIBLE = "uninterruptible"
RUNNING = "running"
SLEEPING = "sleeping"

_STATES = {
    "R": RUNNING,
    "S": SLEEPING,
    "D": UNINTERRUPTIBLE,
    "T": STOPPED,
    "t": TRACED,
    "Z": "ended",
    "X": "ended",
    "I": "idle",
}
_TICKS = os.sysconf("SC_CLK_TCK")
_MOST_THREADS = 1024
_MOST_BYTES = 8192  # of a status file: it has about 1500
_MOST_VARIABLES = 1 << 17
_LINE = 80  # characters of a command line


class Reach(Record):
    """What a process does with a signal: proc(5), /proc/pid/status."""

    state: str  # of the main thread; RUNNING if the main thread sleeps while another thread runs
    caught: bool  # the process has a handler for the signal
    pending: bool  # the signal was sent to the process, and no thread has taken it yet
    blocked: frozenset[int]  # the threads that block the signal, with a thread that runs the handler itself


_NO_LOGIN = 0xFFFFFFFF
"""The loginuid of a process that was not started from a login: proc(5)."""


def start_time(pid: int) -> int:
    """Returns the start time of a process, in the kernel's ticks since boot; 0 if there is no such process. Pid and
    start time together identify a process for good: proc_pid_stat(5), field 22.
    """
    return _stat_field(pid, 22)


def parent(pid: int) -> int:
    """Returns the pid of the parent; 0 if there is none, or no such process: proc_pid_stat(5), field 4."""
    return _stat_field(pid, 4)


def session(pid: int) -> int:
    """Returns the number of the session, the pid of its leader; 0 without such a process: proc_pid_stat(5), field 6."""
    return _stat_field(pid, 6)


def uid(pid: int) -> int:
    """Returns the effective uid of the process; -1 if there is no such process: proc_pid_status(5), Uid."""
    words = (_fields(f"/proc/{pid}/status") or {}).get("Uid", "").split()
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else -1


def children(pid: int) -> list[int]:
    """Returns the pids of the children, with zombies, in no order."""
    try:
        found = [one for task in os.listdir(f"/proc/{pid}/task") for one in _children(f"/proc/{pid}/task/{task}")]
    except (OSError, ValueError):
        found = []
    if found or os.path.exists(f"/proc/{pid}/task/{pid}/children"):  # CONFIG_PROC_CHILDREN
        return found
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and parent(int(name)) == pid]


def is_in_deleted_folder(pid: int) -> bool:
    """Tells whether the working directory of the process has been deleted: proc_pid_cwd(5).

    The kernel answers by itself, without a file server or a file system of the process's user, which may not answer.
    """
    try:
        return os.readlink(f"/proc/{pid}/cwd").endswith(" (deleted)")
    except OSError:
        return False


def is_ending(pid: int) -> bool:
    """Tells whether the process has ended, or SIGKILL has been sent to it."""
    fields = _fields(f"/proc/{pid}/status")
    killed = 1 << 8
    return (
        fields is None
        or _state(fields) == "ended"
        or bool((_mask(fields, "SigPnd") | _mask(fields, "ShdPnd")) & killed)
    )


def _children(task: str) -> list[int]:
    with open(f"{task}/children", "rb") as file:  # more than one read: the kernel gives a page at a time
        return [int(one) for one in file.read().split()]


def described(pid: int) -> str:
    """Returns the command line and pid for messages, "sleep 777 (pid 4711)"; "" if the process has ended."""
    line = " ".join(_read(f"/proc/{pid}/cmdline").replace("\0", " ").split()) or _read(f"/proc/{pid}/comm").strip()
    if not line or state(pid) == _STATES["Z"]:
        return ""
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return f"{line if len(line) <= _LINE else line[: _LINE - 1] + '…'} (pid {pid})"


def login(pid: int) -> str:
    """Returns the user behind a process of root: the uid of the login, or the user name in sudo's variable; "" if
    neither is known. For logs and histories only: root may have set both.
    """
    number = _read(f"/proc/{pid}/loginuid").strip()
    if number.isdecimal() and int(number) not in (0, _NO_LOGIN):
        return number
    variables = _read(f"/proc/{pid}/environ", _MOST_VARIABLES).split("\0")
    return next((text.removeprefix("SUDO_USER=") for text in variables if text.startswith("SUDO_USER=")), "")


def processor_time(pid: int) -> float:
    """Returns the CPU seconds of all threads, to a hundredth; 0.0 without such a process: proc_pid_stat(5), fields 14
    and 15.
    """
    return (_stat_field(pid, 14) + _stat_field(pid, 15)) / _TICKS


def _stat_field(pid: int, number: int) -> int:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        # The second field is the title in parentheses, and may hold anything, parentheses too.
        return int(os.read(fd, 4096).rpartition(b")")[2].split()[number - 3])
    except (OSError, ValueError, IndexError):
        return 0
    finally:
        os.close(fd)


def reach(pid: int, number: int) -> Reach | None:
    """Returns what the process does with signal `number`; None if the process has ended or /proc does not show it."""
    bit = 1 << (number - 1)
    fields = _fields(f"/proc/{pid}/status")
    if fields is None:
        return None
    state = _state(fields)
    blocked = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")[:_MOST_THREADS]
    except OSError:
        return None
    for thread in threads:
        own = _fields(f"/proc/{pid}/task/{thread}/status")
        if own is None:
            continue
        if state == SLEEPING and _state(own) == RUNNING:
            state = RUNNING
        if _mask(own, "SigBlk") & bit:
            blocked.append(int(thread))
    return Reach(
        state,
        bool(_mask(fields, "SigCgt") & bit),
        bool(_mask(fields, "ShdPnd") & bit),
        frozenset(blocked),
    )


def state(pid: int) -> str:
    """Returns the state of the main thread: STOPPED by a signal, TRACED (held by a debugger), …; "unknown" if /proc
    does not show the process.

    A process under strace, which observes only, is TRACED for moments.
    """
    _, _, rest = _read(f"/proc/{pid}/status").partition("\nState:\t")
    return _STATES.get(rest[:1], "unknown")  # one line of sixty: each worker that is told to drain is looked at


def wait_channel(pid: int) -> str:
    """Returns the kernel function in which the main thread waits; "" if the thread does not wait, or /proc does not
    tell.
    """
    text = _read(f"/proc/{pid}/wchan")
    return "" if text in ("", "0") or not text.isidentifier() else text


def _state(fields: dict[str, str]) -> str:
    return _STATES.get(fields.get("State", "?")[:1], "unknown")


def _fields(path: str) -> dict[str, str] | None:
    text = _read(path)
    if not text:
        return None
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _mask(fields: dict[str, str], name: str) -> int:
    try:
        return int(fields.get(name, "0"), 16)
    except ValueError:
        return 0


def _read(path: str, most: int = _MOST_BYTES) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, most).decode("utf-8", "replace")
    except OSError:  # ESRCH: the process ended meanwhile
        return ""
    finally:
        os.close(fd)
