"""What /proc tells of a process: its state, and what it does with a signal.

Knows processes by their pid only: whoever asks must hold a pidfd, and look at it afterwards (a pid may be reused).
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
    """How far a signal gets into a process: proc(5), /proc/pid/status."""

    state: str  # of its main thread; RUNNING, if that sleeps while another one runs
    caught: bool  # it has a handler
    pending: bool  # sent to the process, and not taken yet
    blocked: frozenset[int]  # the threads that do not take it now; one in the handler itself is among them


_NO_LOGIN = 0xFFFFFFFF
"""The loginuid of what no login has started: proc(5)."""


def start_time(pid: int) -> int:
    """When a process was started, in the kernel's ticks since boot; 0 if there is none. With the pid it is a name that
    is never given again: proc_pid_stat(5), field 22.
    """
    return _stat_field(pid, 22)


def parent(pid: int) -> int:
    """The pid of its parent; 0 if there is none, or no such process: proc_pid_stat(5), field 4."""
    return _stat_field(pid, 4)


def session(pid: int) -> int:
    """The pid that its session is named after; 0 if there is no such process: proc_pid_stat(5), field 6."""
    return _stat_field(pid, 6)


def uid(pid: int) -> int:
    """The user that it runs as (effective); -1 if there is no such process: proc_pid_status(5), Uid."""
    words = (_fields(f"/proc/{pid}/status") or {}).get("Uid", "").split()
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else -1


def children(pid: int) -> list[int]:
    """The pids of its children, zombies too, in no order."""
    try:
        found = [one for task in os.listdir(f"/proc/{pid}/task") for one in _children(f"/proc/{pid}/task/{task}")]
    except (OSError, ValueError):
        found = []
    if found or os.path.exists(f"/proc/{pid}/task/{pid}/children"):  # CONFIG_PROC_CHILDREN
        return found
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and parent(int(name)) == pid]


def is_in_deleted_folder(pid: int) -> bool:
    """The working directory of the process has been deleted: proc_pid_cwd(5).

    The kernel answers by itself: neither a dead file server nor a file system of the process's user is asked.
    """
    try:
        return os.readlink(f"/proc/{pid}/cwd").endswith(" (deleted)")
    except OSError:
        return False


def is_ending(pid: int) -> bool:
    """It has ended, or SIGKILL has been sent to it."""
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
    """What people call it, "sleep 777 (pid 4711)"; "" if it has ended."""
    line = " ".join(_read(f"/proc/{pid}/cmdline").replace("\0", " ").split()) or _read(f"/proc/{pid}/comm").strip()
    if not line or state(pid) == _STATES["Z"]:
        return ""
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return f"{line if len(line) <= _LINE else line[: _LINE - 1] + '…'} (pid {pid})"


def login(pid: int) -> str:
    """Behind a process of root: the number of the user that logged in, or the name that sudo tells; "" if neither is
    known. For logs and histories only: root may have set both.
    """
    number = _read(f"/proc/{pid}/loginuid").strip()
    if number.isdecimal() and int(number) not in (0, _NO_LOGIN):
        return number
    variables = _read(f"/proc/{pid}/environ", _MOST_VARIABLES).split("\0")
    return next((text.removeprefix("SUDO_USER=") for text in variables if text.startswith("SUDO_USER=")), "")


def processor_time(pid: int) -> float:
    """Seconds that its threads have run, to a hundredth; 0.0 if there is none: proc_pid_stat(5), fields 14 and 15."""
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
    """What the process does with signal `number`; None when it has ended or cannot be seen."""
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
    """What its main thread does: STOPPED by a signal, TRACED – held by a debugger –, … "unknown" if it is not seen.

    Who is only watched (strace) is TRACED for moments.
    """
    return _state(_fields(f"/proc/{pid}/status") or {})


def wait_channel(pid: int) -> str:
    """The kernel's function in which its main thread waits; "" if it does not, or that is not told."""
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
    except OSError:  # ESRCH: it ended meanwhile
        return ""
    finally:
        os.close(fd)
