"""Starts the daemon for a plain `srvd start …` without importing click; passes everything else to `app.py`.

Importing click takes 18 ms of a start of some 80 ms. Explains nothing and refuses nothing itself. A test compares both
readers of the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from srvd.cli.flags import SHORT, Asked, completed, flags
from srvd.cli.start import start
from srvd.errors import EXIT, SrvdError

__all__ = ["main", "read_plain"]


def read_plain(arguments: Sequence[str]) -> Asked | None:
    """Reads the arguments of a plain `start`; None for anything else, which `app.py` reads."""
    known = {flag: setting for flag, setting in flags().items() if flag != "APP"}
    path: str | None = None
    given: dict[str, object] = {}
    daemonize = False
    if not arguments or arguments[0] != "start":
        return None
    rest = iter(completed(arguments[1:]))
    for word in rest:
        name, equals, value = word.partition("=")
        name = name if equals else SHORT.get(name, name)
        if word == "--daemonize":
            daemonize = True
        elif not word.startswith("-") and "APP" not in given:
            given["APP"] = word
        elif name in known or name in ("-c", "--config"):
            if not equals:
                value = next(rest, "-")
            if value.startswith("-") or (equals and name == "-c"):
                return None
            if name in ("-c", "--config"):
                path = value
            elif known[name].kind == "addresses":
                held = given.get(name, ())
                assert isinstance(held, tuple)
                given[name] = (*held, value)
            else:
                given[name] = value
        else:
            return None
    return Asked(path, given, daemonize)


def main() -> None:
    """Runs `srvd`, and ends the process with a code of docs/reference/exit-codes.md."""
    asked = read_plain(sys.argv[1:])
    try:
        if asked is not None:
            sys.exit(start(asked))
    except SrvdError as error:
        from srvd.cli.saying import complain  # an error may take longer

        complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT.INTERRUPTED)
    except Exception as exc:  # the process ends here
        sys.excepthook(type(exc), exc, exc.__traceback__)
        sys.exit(EXIT.BUG)
    from srvd.cli import app

    app.main()
