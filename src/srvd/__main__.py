"""The entry of `srvd` and of `python -m srvd`.

A start waits longest for the first zygote's interpreter: it is started here, before even the command line is parsed.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Never returns; the exit codes are those of docs/reference/exit-codes.md."""
    words = sys.argv[1:]
    # Not with --daemonize: the daemon is another process then, and the zygote must be a child of its own.
    if words[:1] == ["start"] and not {"--daemonize", "--help", "-h"} & set(words):
        from srvd.linux import interpreter

        interpreter.prepare()
    from srvd import cli

    cli.main()


if __name__ == "__main__":
    main()
