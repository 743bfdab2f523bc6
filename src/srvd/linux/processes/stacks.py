"""How a process tells the stacks of its threads: two signals, and a file that it writes them to.

Knows nobody who asks; when which signal is sent is decided elsewhere.

ASK is answered by Python, in the main thread, as soon as that has the interpreter: no other thread runs meanwhile. DUMP
is answered by C, at once, whoever has the interpreter; but then other threads may run on while their stacks are read,
and reading a frame that is just being left can crash the process. (A worker of four busy threads died of it after some
forty dumps, on Python 3.11.) So it is the second choice, for a process that does not answer to ASK: one where C code
keeps the interpreter's lock, and nothing else runs.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from contextlib import suppress

__all__ = ["ASK", "DUMP", "only", "tell_to"]

ASK = signal.SIGRTMIN + 6
DUMP = signal.SIGRTMIN + 7

_START = b"\2"
_END = b"\3"
# With the path that former versions had, too: a daemon reads what adopted processes write.
_OURS = re.compile(r'  File "[^"\n]*[/\\]srvd[/\\]linux[/\\](?:processes[/\\])?stacks\.py", line \d+ in answer\n')


def tell_to(fd: int) -> None:
    """From now on this process writes its stacks to `fd` when it is asked; it stays so over a fork.

    Calls of the kernel go on after DUMP; after ASK those that Python makes do (PEP 475). Call it in the main thread.
    """

    def answer(number: int, frame: object) -> None:
        # The file is full, or RLIMIT_FSIZE says so. Raised here, it would be raised wherever the application is.
        with suppress(OSError):
            os.write(fd, _START)
            faulthandler.dump_traceback(fd, all_threads=True)
            os.write(fd, _END)

    faulthandler.register(DUMP, fd, all_threads=True, chain=False)
    signal.signal(ASK, answer)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [ASK, DUMP])


def only(written: bytes) -> tuple[str, bool]:
    """The stacks in what a process wrote, and whether it has finished an answer to ASK.

    It may have written twice: for DUMP, and for ASK when it came round to that at last. One of them is enough.
    """
    first, _, rest = written.partition(_START)
    answered = rest.endswith(_END)
    text = rest[:-1].rpartition(_START)[2] if answered else first or rest
    return _OURS.sub("", text.decode("utf-8", "replace"), count=1), answered
