"""Makes a process write the stacks of its threads to a file when it gets one of two signals.

Does not decide when which signal is sent.

Python handles ASK, in the main thread, as soon as that thread has the interpreter's lock: no other thread runs during
the answer. C code handles DUMP at once, whichever thread has the lock; but other threads may run while their stacks are
read, and reading a frame that is just being left can crash the process. (A worker with four busy threads crashed after
some forty dumps, on Python 3.11.) So DUMP is the second choice, for a process that does not answer to ASK because C
code keeps the interpreter's lock; then no other thread runs Python code.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from collections.abc import Callable
from contextlib import suppress

__all__ = ["ASK", "DUMP", "only", "tell_also", "tell_to"]

ASK = signal.SIGRTMIN + 6
DUMP = signal.SIGRTMIN + 7

_START = b"\2"
_END = b"\3"
# With the path in former versions, too: a daemon reads stacks that adopted processes of these versions write.
_OURS = re.compile(r'  File "[^"\n]*[/\\]srvd[/\\]linux[/\\](?:processes[/\\])?stacks\.py", line \d+ in answer\n')


_others: list[Callable[[], str]] = []
"""What this process tells besides the stacks of its threads."""


def tell_also(others: Callable[[], str]) -> None:
    """Makes the answer to ASK end with what this returns, in the spelling of `wire/stacks.py`."""
    _others[:] = [others]


def tell_to(fd: int) -> None:
    """Makes this process, and its forks, write their stacks to `fd` when they get ASK or DUMP.

    After DUMP every interrupted system call goes on; after ASK those that Python itself makes (PEP 475). Must be called
    in the main thread.
    """

    def answer(number: int, frame: object) -> None:
        # The disk is full, or RLIMIT_FSIZE is reached. An exception here would appear anywhere in the application.
        with suppress(OSError):
            os.write(fd, _START)
            faulthandler.dump_traceback(fd, all_threads=True)
            for others in _others:
                with suppress(Exception):  # it reads what the application may have changed
                    os.write(fd, others().encode("utf-8", "replace"))
            os.write(fd, _END)

    faulthandler.register(DUMP, fd, all_threads=True, chain=False)
    signal.signal(ASK, answer)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [ASK, DUMP])


def only(written: bytes) -> tuple[str, bool]:
    """Returns the stacks in the bytes that a process wrote, and whether the bytes end with a whole answer to ASK.

    The process may have written its stacks twice, for DUMP and for a late ASK; one of them is returned.
    """
    first, _, rest = written.partition(_START)
    answered = rest.endswith(_END)
    text = rest[:-1].rpartition(_START)[2] if answered else first or rest
    return _OURS.sub("", text.decode("utf-8", "replace"), count=1), answered
