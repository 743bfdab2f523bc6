"""Reloads under load: how many requests failed, and the longest time in which nobody was answered. Not a test.

python -m tests.bench.reloads [--reloads 10] [--clients 8]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil

from tests.support import apps
from tests.support.daemon import Srvd
from tests.support.waiting import wait_for


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reloads", type=int, default=10)
    options.add_argument("--clients", type=int, default=8)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="srvd-bench-") as name:
        srvd = Srvd(Path(name), "--workers", "4")
        srvd.deploy(apps.good())
        srvd.start()
        try:
            _reload(srvd, given.reloads, given.clients)
        finally:
            srvd.stop()


def _reload(srvd: Srvd, reloads: int, clients: int) -> None:
    daemon = psutil.Process(srvd.pid)
    srvd.call("reload")  # what a first reload leaves for a rollback is there from now on
    wait_for(lambda: srvd.pool()["draining"] == 0, within=60)
    before = daemon.num_fds(), len(daemon.children(recursive=True))
    took = []
    with srvd.under_load(clients) as load:
        for _ in range(reloads):
            began = time.perf_counter()
            srvd.call("reload")
            took.append(time.perf_counter() - began)
    wait_for(lambda: srvd.pool()["draining"] == 0, within=60)
    after = daemon.num_fds(), len(daemon.children(recursive=True))
    print(f"{reloads} reloads under {clients} keep-alive clients, {load.answered} requests")  # noqa: T201 - a program that prints
    print(f"failed requests    {len(load.failed)}")  # noqa: T201
    print(f"longest gap        {load.gap * 1e3:.1f} ms")  # noqa: T201
    print(f"one reload         {min(took) * 1e3:.0f} to {max(took) * 1e3:.0f} ms")  # noqa: T201
    print(f"daemon's fds       {before[0]} before, {after[0]} after")  # noqa: T201
    print(f"processes          {before[1]} before, {after[1]} after")  # noqa: T201


if __name__ == "__main__":
    main()
