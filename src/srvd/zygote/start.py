"""The entry of a zygote, called by the command line that `daemon/spawn.py` gives the interpreter. Not for use by hand.

A fresh interpreter that loads one application and forks workers of it, on one thread, without asyncio.
"""

from __future__ import annotations

import faulthandler
import sys
from typing import NoReturn

from srvd.linux.process import DUMP_SIGNAL


def main() -> NoReturn:
    """Become a zygote."""
    # Descriptor 2 by number, so that a worker's own stderr is written to after the fork.
    faulthandler.enable(file=2)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True, chain=False)
    # Here, not above: what hangs from now on, the worker's code and the application, can be made to say where.
    from srvd.zygote.life import live

    live(sys.argv)
