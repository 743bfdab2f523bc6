"""Entry of a zygote: the first code of this program that the interpreter of a pool calls.

The name of this file, `live`, its arguments and descriptors never change, because the daemon may be of another version:
an installer has replaced the files since its start, or the pool's `python` has a srvd of its own. The work behind them,
in `zygote/main.py`, may change.
"""

from __future__ import annotations

import gc
from typing import NoReturn

__all__ = ["live"]


def live() -> NoReturn:
    """Be a zygote. Never returns.

    sys.argv[1]: number of the link, a SOCK_SEQPACKET socket. The first message on it is `Load` (`wire/links.py`); a
        zygote that cannot read that message answers `LoadFailed` and ends.
    sys.argv[2]: number of the memfd that a zygote leaves to itself over its own execve(2); the daemon passes none.

    Descriptors: 0 is /dev/null, 1 and 2 are the pipe to the daemon, 4 is the daemon's standard output
    (`linux/output.py:NUMBER`). The process leads a session of its own.
    """
    gc.disable()  # imports leave no garbage, and a search for it costs 4 % of the time until a zygote can load
    from srvd.zygote import main

    gc.freeze()
    gc.enable()
    main.live()
