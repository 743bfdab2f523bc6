"""Formats the traceback of an exception as the interpreter itself does.

Does not use the `traceback` module, which takes 4 ms to import at every start of a zygote, with `tokenize` and
`linecache`.
"""

from __future__ import annotations

import errno
import sys
from io import StringIO
from threading import Lock

__all__ = ["blame", "format_traceback"]

_borrowed = Lock()


def blame(exc: BaseException) -> str:
    """Names the cause of an exception in the server's own code: the application, if it has closed a descriptor of the
    server, as `os.closerange` does. Such a number is closed then, or leads to another file, which is no socket or which
    epoll(7) does not take.
    """
    closed = isinstance(exc, OSError) and exc.errno in (errno.EBADF, errno.ENOTSOCK, errno.EPERM)
    return "the application has closed a descriptor of the server" if closed else "a bug in srvd"


def format_traceback(exc: BaseException) -> str:
    """Returns the lines from "Traceback (most recent call last)" to the last one, with causes, without a final newline.

    The interpreter's hook writes to `sys.stderr`, which is replaced during the call: lines that another thread prints
    in that time appear in the text. A lock admits one thread at a time; two at once could leave a replacement in place
    for good.
    """
    text = StringIO()
    with _borrowed:
        theirs, sys.stderr = sys.stderr, text
        try:
            sys.__excepthook__(type(exc), exc, exc.__traceback__)
        finally:
            sys.stderr = theirs
    return text.getvalue().rstrip("\n")
