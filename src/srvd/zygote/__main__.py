"""The entry of a zygote: `python -P -m srvd.zygote LINK_FD`, started by the daemon. Not for use by hand.

A fresh interpreter that loads one application and forks workers of it, on one thread, without asyncio.
"""

from __future__ import annotations

import faulthandler
import sys

from srvd.linux.process import DUMP_SIGNAL

if __name__ == "__main__":
    # Before anything else is imported: what hangs from here on can be made to say where. Descriptor 2 by number, so
    # that a worker's own stderr is written to after the fork.
    faulthandler.enable(file=2)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True, chain=False)
    from srvd.zygote.life import live

    live(sys.argv)
