"""The entry of `srvd` and of `python -m srvd`.

A start waits longest for the first zygote's interpreter. So it is started here, before the command line is parsed.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Runs `srvd`, and ends the process with a code of docs/reference/exit-codes.md."""
    _fill_standard_streams()
    _close_on_exec()
    words = sys.argv[1:]
    if words[:1] == ["start"]:
        gc.disable()  # until the daemon is made (`daemon/entry/live.py`): imports leave no garbage, a search costs 6 %
    # Not with --daemonize: the daemon is another process then, and the zygote must be a child of its own.
    if words[:1] == ["start"] and not {"--daemonize", "--help", "-h"} & set(words):
        from srvd.linux import interpreter

        interpreter.prepare()
    from srvd.cli import fast

    fast.main()


def _fill_standard_streams() -> None:
    """Opens /dev/null for each of 0, 1 and 2 that is closed (`srvd start >&-`).

    Else the next socket or scoreboard would get that number, and an application would print into it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number, which is this one


def _close_on_exec() -> None:
    """Makes inherited descriptors, such as sockets of systemd, close-on-exec, so that zygotes do not inherit them."""
    try:
        inherited = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # without /proc, no zygote can start anyway
        return
    for fd in inherited:
        if fd > 2:
            try:
                os.set_inheritable(fd, False)
            except OSError:  # the listing's own descriptor, closed by now
                continue


if __name__ == "__main__":
    main()
