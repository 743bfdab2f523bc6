"""The part of a soak that gunicorn can take part in, for comparison: deaths, reloads by HUP, sizes by TTIN and TTOU.

    python -m tests.soak.gunicorn [--minutes 10] [--seed N] [--gunicorn PATH] [--kinds "kill a worker,reload good"]

Prints what the clients met. Its orders have no answers, so none of them can be untrue. When it ends by itself it is
started again, and that is counted. Needs gunicorn; not a test.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.soak.plan import Action, plan
from tests.support import apps
from tests.support.load import load_on
from tests.support.waiting import wait_for

KINDS = ("kill a worker", "reload good", "reload broken", "scale")


class Gunicorn:
    def __init__(self, folder: Path, program: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = probe.getsockname()
        self._folder = folder
        self._command = [
            program, "app:app", "-b", f"127.0.0.1:{self.address[1]}", "-w", "4", "-k", "gthread", "--threads", "4",
            "--no-control-socket", "--log-level", "critical",
        ]  # fmt: skip
        self.ended = 0
        self.killed: dict[int, float] = {}
        self._size = 4
        self.good("one")
        self.start()

    def good(self, release: str) -> None:
        self._deploy(apps.good(release).replace('environ["srvd.worker"]', "str(os.getpid())"))

    def _deploy(self, code: str) -> None:
        (self._folder / "app.py").write_text(code)

    def start(self) -> None:
        self._size = 4
        self.process = subprocess.Popen(self._command, cwd=self._folder, stderr=subprocess.DEVNULL)
        wait_for(self._answers, within=20, every=0.1)

    def _answers(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=1).close()
        except OSError:
            return False
        return True

    def do(self, action: Action) -> None:
        if self.process.poll() is not None:
            self.ended += 1
            self.start()
        match action.kind:
            case "kill a worker":
                workers = psutil.Process(self.process.pid).children()
                if workers:
                    victim = workers[action.dice % len(workers)]
                    victim.suspend()
                    now = time.monotonic()
                    peers = [connection.raddr for connection in victim.net_connections("tcp")]
                    self.killed |= {peer.port: now for peer in peers if peer}
                    victim.kill()
            case "reload good":
                self.good(f"r{action.dice}")
                self.process.send_signal(signal.SIGHUP)
            case "reload broken":
                self._deploy(apps.BROKEN["raises at import"])
                self.process.send_signal(signal.SIGHUP)
                time.sleep(1)
                self.good("one")
            case _:
                up = action.dice % 2 and self._size < 7
                self._size += 1 if up else -1 if self._size > 2 else 0
                self.process.send_signal(signal.SIGTTIN if up else signal.SIGTTOU)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 20))
    options.add_argument("--every", type=float, default=2.0)
    options.add_argument("--clients", type=int, default=16)
    options.add_argument("--kinds", default=",".join(KINDS))
    options.add_argument("--gunicorn", default="gunicorn")
    given = options.parse_args()
    actions = plan(given.seed, int(given.minutes * 60 / given.every), tuple(given.kinds.split(",")))
    with tempfile.TemporaryDirectory(prefix="srvd-soak-") as name:
        server = Gunicorn(Path(name), given.gunicorn)
        try:
            with load_on(server.address, given.clients) as load:
                for action in actions:
                    began = time.monotonic()
                    server.do(action)
                    time.sleep(max(given.every - (time.monotonic() - began), 0.0))
                load.over.set()
        finally:
            os.kill(server.process.pid, signal.SIGTERM)
            server.process.wait(60)
    inside = [failure for failure in load.failed if failure.port in server.killed]
    figures = {
        "seed": given.seed,
        "requests answered": load.answered,
        "lost in killed processes": len(inside),
        "lost otherwise": len(load.failed) - len(inside),
        "longest gap, ms": round(load.gap * 1000),
        "ended by itself": server.ended,
    }
    for what, figure in figures.items():
        sys.stdout.write(f"{what:26} {figure}\n")


if __name__ == "__main__":
    main()
