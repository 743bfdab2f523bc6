"""The entry of `srvd` and of `python -m srvd`.

A start waits longest for the first zygote's interpreter: it is started here, before even the command line is parsed.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Never returns; the exit codes are those of docs/reference/exit-codes.md."""
    _fill_standard_streams()
    _keep_to_ourselves()
    words = sys.argv[1:]
    # Not with --daemonize: the daemon is another process then, and the zygote must be a child of its own.
    if words[:1] == ["start"] and not {"--daemonize", "--help", "-h"} & set(words):
        from srvd.linux import interpreter

        interpreter.prepare()
    from srvd.cli import fast

    fast.main()


def _fill_standard_streams() -> None:
    """What of 0, 1 and 2 was closed (`srvd start >&-`) becomes /dev/null: the next thing that is opened would get its
    number, and what an application prints would go into a socket or the scoreboard.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one


def _keep_to_ourselves() -> None:
    """Descriptors that were inherited, a socket of systemd's for one, are not for zygotes and what runs in them."""
    try:
        inherited = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc: no zygote would get far
        return
    for fd in inherited:
        if fd > 2:
            try:
                os.set_inheritable(fd, False)
            except OSError:  # it was the listing's own
                continue


if __name__ == "__main__":
    main()
