"""The traceback of an exception, as text, written as the interpreter itself writes it.

Not the `traceback` module: with `tokenize` and `linecache` it costs every start of a zygote 4 ms of import.
"""

from __future__ import annotations

import errno
import sys
from io import StringIO
from threading import Lock

__all__ = ["blame", "format_traceback"]

_borrowed = Lock()


def blame(exc: BaseException) -> str:
    """Whose fault an exception in the server's own code is: the application's if it closed a descriptor that is not its
    own, as `os.closerange` does. The number is nothing then, or no socket, or a file, which epoll(7) does not take.
    """
    closed = isinstance(exc, OSError) and exc.errno in (errno.EBADF, errno.ENOTSOCK, errno.EPERM)
    return "the application has closed a descriptor of the server" if closed else "a bug in srvd"


def format_traceback(exc: BaseException) -> str:
    """Everything from "Traceback (most recent call last)" to the last line, causes included; no newline at its end.

    The interpreter's hook writes to `sys.stderr`, which is ours while it does: what another thread says in that moment
    is found in the text. One at a time: else somebody's text would stay there for good.
    """
    text = StringIO()
    with _borrowed:
        theirs, sys.stderr = sys.stderr, text
        try:
            sys.__excepthook__(type(exc), exc, exc.__traceback__)
        finally:
            sys.stderr = theirs
    return text.getvalue().rstrip("\n")
