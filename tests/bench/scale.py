"""Orders about many workers: wall time, and the CPU time of the daemon alone. Not a test.

    python -m tests.bench.scale [--rounds 2] [--workers 50 200 1000] [SOURCE …]

SOURCE: directories that hold a package `srvd`, measured in turns (default: the one that is installed). The least of all
rounds is printed: on a machine that is busy with other work it says most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from srvd.client.connection import Client
from srvd.errors import SrvdError
from tests.support.waiting import wait_for

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""
BIN = Path(sys.executable).parent
TICKS = os.sysconf("SC_CLK_TCK")
POOLS = 50

Figures = dict[str, tuple[float, float]]
"""Seconds of wall time and of the daemon's CPU time, by what was done."""


class Daemon:
    """One daemon with a tiny application."""

    def __init__(self, folder: Path, source: str, config: str) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "srvd.toml").write_text(config.replace("$FOLDER", str(folder)))
        self.control = str(folder / "ctl")
        env = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        env |= {"PYTHONPATH": source} if source else {}
        self.process = subprocess.Popen(
            [str(BIN / "srvd"), "start", "-c", "srvd.toml", "--socket", self.control],
            cwd=folder, env=env | {"PWD": str(folder)}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("w"),
        )  # fmt: skip

    def cpu(self) -> float:
        """User and kernel seconds; also of a process that has ended and is not reaped."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def is_ready(self) -> bool:
        try:
            with Client.connect(self.control) as client:
                return all(pool["state"] == "ready" for pool in client.call("status", {})["pools"])
        except SrvdError:  # it does not listen yet
            return False

    def has_ended(self) -> bool:
        """Asked of the kernel: the process is left to be reaped by `close`, so that its CPU time can be read."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def until(done: Callable[[], bool]) -> None:
    wait_for(done, within=120, every=0.02)


@contextmanager
def measured(figures: Figures, name: str, daemon: Daemon) -> Iterator[None]:
    began, before = time.monotonic(), daemon.cpu()
    yield
    figures[name] = time.monotonic() - began, daemon.cpu() - before


def ctl(daemon: Daemon, *words: str) -> None:
    """An order by srvctl, which waits for its end."""
    done = subprocess.run(
        [str(BIN / "srvctl"), "-s", daemon.control, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


def stopped(figures: Figures, name: str, daemon: Daemon) -> None:
    with measured(figures, name, daemon):
        daemon.process.terminate()
        until(daemon.has_ended)
    daemon.process.wait()


def one_pool(count: int, folder: Path, source: str) -> Figures:
    """Start, reload and stop so many workers; scale to them from a fifth."""
    figures: Figures = {}
    few = max(1, count // 5)
    config = f'[listeners.web]\nbind = ["unix:$FOLDER/s"]\n[pools.web]\napp = "app:app"\nworkers = {few}\n'
    daemon = Daemon(folder, source, config)
    until(daemon.is_ready)
    with measured(figures, f"scale {few} to {count}", daemon):
        ctl(daemon, "scale", str(count), "web")
    with measured(figures, f"reload {count}", daemon):
        ctl(daemon, "reload")
    stopped(figures, f"stop {count}", daemon)
    return figures


def many_pools(folder: Path, source: str) -> Figures:
    """Start, reload and stop 50 pools of 4 workers."""
    figures: Figures = {}
    listeners = "".join(f'[listeners.l{n}]\nbind = ["unix:$FOLDER/s{n}"]\n' for n in range(POOLS))
    pools = "".join(f'[pools.p{n}]\napp = "app:app"\nworkers = 4\nlisteners = ["l{n}"]\n' for n in range(POOLS))
    daemon = Daemon(folder, source, listeners + pools)
    began = time.monotonic()
    until(daemon.is_ready)
    figures[f"start {POOLS} × 4"] = time.monotonic() - began, daemon.cpu()
    with measured(figures, f"reload {POOLS} × 4", daemon):
        ctl(daemon, "reload")
    stopped(figures, f"stop {POOLS} × 4", daemon)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", default=[""])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="*", default=[50, 200, 1000])
    options = parser.parse_args()
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for turn in range(options.rounds):
        for source in options.sources[:: 1 if turn % 2 else -1]:
            runs: list[Callable[[Path, str], Figures]] = [partial(one_pool, count) for count in options.workers]
            for run in [*runs, many_pools]:
                with tempfile.TemporaryDirectory() as folder:
                    for name, figure in run(Path(folder), source).items():
                        found.setdefault(name, {}).setdefault(source, []).append(figure)
                        print(name, source, figure, file=sys.stderr)  # noqa: T201 - a program that prints
    for name, by_source in found.items():
        cells = [f"{min(w for w, _ in f):.2f} s, {min(c for _, c in f):.2f} s CPU" for f in by_source.values()]
        print(f"| {name} | {' | '.join(cells)} |")  # noqa: T201


if __name__ == "__main__":
    main()
