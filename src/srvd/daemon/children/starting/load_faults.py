"""Why a zygote did not load its application, in the words that the core is told, with a hint.

Looks at no process: the caller says how the zygote ended and what it wrote.
"""

from __future__ import annotations

from srvd import __version__
from srvd.core.model import ErrorCode, Fault
from srvd.daemon.children.starting.launch import interpreter
from srvd.daemon.children.zygote import Zygote
from srvd.errors import EXIT
from srvd.ids import GenerationId
from srvd.linux.interpreter import REFUSED
from srvd.linux.processes.process import Ended

__all__ = ["load_fault", "not_understood", "unsaid"]

_SHORTAGE = ("Too many open files", "Cannot allocate", "MemoryError", "unavailable", "File too large", "new thread")
"""Texts in the last line of a process that had run short of something."""


def load_fault(generation: GenerationId, message: str, hint: str, traceback: str = "") -> Fault:
    """The fault of a load that a zygote, or the daemon before it, has described."""
    return Fault(ErrorCode.LOAD_FAILED, message, hint, step="load", pool=generation.pool, traceback=traceback)


def not_understood(zygote: Zygote, nonsense: str) -> Fault:
    """The fault of a zygote that has sent what is no message."""
    reason = f"load {zygote.pool.app}: the zygote was not understood ({nonsense})"
    hint = f"install srvd {__version__} for {interpreter(zygote.pool)}"
    return load_fault(zygote.id, reason, hint, zygote.process.output.tail)


def unsaid(zygote: Zygote, ended: Ended, tail: str) -> Fault:
    """The reason why a zygote ended without a message: mostly an interpreter that cannot run srvd."""
    program = interpreter(zygote.pool)
    if REFUSED in tail:
        reason = tail.partition(REFUSED)[2].strip()
        hint = f"see `python`, `rlimits` and `user` of the pool: its user must be able to run {program}"
    elif "No module named 'srvd" in tail or "No module named srvd" in tail:
        reason = f"load {zygote.pool.app} with {program}: srvd is not installed there"
        hint = f"install srvd {__version__} there, too: {program} -m pip install PATH_TO_SRVD"
    elif "nknown option" in tail and "-P" in tail:
        reason = f"load {zygote.pool.app} with {program}: it is older than Python 3.11"
        hint = "srvd needs Python 3.11 or newer for the application, too"
    elif ended.exit_code == EXIT.BUG and tail.strip():  # an exception of the application would have been reported
        reason = f"load {zygote.pool.app}: the process ended while it was loaded: {tail.strip().splitlines()[-1]}"
        last = tail.strip().splitlines()[-1]
        short = any(word in last for word in _SHORTAGE)
        hint = "see `rlimits` of the pool, and what the system lets a process have" if short else "srvctl why has more"
    else:
        reason = f"load {zygote.pool.app}: the process ended while it was loaded ({ended})"
        hint = "something ended it without a word, os._exit or a crash of an extension"
    return load_fault(zygote.id, reason, hint, tail)
