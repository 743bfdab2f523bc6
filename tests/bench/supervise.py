"""srvd beside gunicorn 27.0.1 in one run: start, respawn, scale, reload, status, wake-ups, memory. Not a test.

    python -m tests.bench.supervise [--rounds 7] [--gunicorn BIN/DIR]

The two are measured in turns, each round both, and medians are printed with their ratio (below 1: srvd is ahead).
gunicorn is installed into a virtual environment of its own unless one is named.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

from srvd.client.connection import Client

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""
WORKERS = 4
BIN = Path(sys.executable).parent


class Server:
    """One of the two, started afresh for each round."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = str(folder / f"{self.name}.sock")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def parent(self) -> int:
        """The process that forks workers."""
        raise NotImplementedError

    def start(self) -> float:
        """Seconds from exec to the first 200."""
        began = time.perf_counter()
        self.process = subprocess.Popen(
            self.command(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers)
        took = time.perf_counter() - began
        until(lambda: len(self.workers()) == WORKERS)
        return took

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b" 200 " in client.recv(100)
        except OSError:
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def workers(self) -> set[int]:
        return children(self.parent())

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def respawn(self) -> float:
        """Seconds from SIGKILL of a worker until another process has taken its place."""
        before = self.workers()
        victim = min(before)
        began = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        until(lambda: len((now := self.workers()) - before) == 1 and victim not in now)
        return time.perf_counter() - began

    def reload(self) -> float:
        """Seconds from SIGHUP until only new workers are there, in full number."""
        before = self.all_workers()
        began = time.perf_counter()
        os.kill(self.pid, signal.SIGHUP)
        until(lambda: len(now := self.all_workers()) == len(before) and not now & before)
        return time.perf_counter() - began

    def all_workers(self) -> set[int]:
        return self.workers()

    def scale_command(self, more: int) -> list[str]:
        raise NotImplementedError

    def scale(self) -> float:
        """Seconds for the whole command that adds as many workers as there are, until they are there."""
        wanted = 2 * len(self.workers())
        began = time.perf_counter()
        run(self.scale_command(wanted - len(self.workers())))
        until(lambda: len(self.workers()) == wanted)
        return time.perf_counter() - began

    def status_command(self) -> list[str]:
        raise NotImplementedError

    def status(self) -> float:
        began = time.perf_counter()
        run(self.status_command())
        return time.perf_counter() - began

    def status_rpc(self, count: int) -> float:
        """Seconds of one round trip on an open connection, the median of `count`."""
        raise NotImplementedError

    def memory(self) -> tuple[int, int]:
        """Resident bytes of the daemon and of a worker (the median)."""
        return resident(self.pid), int(statistics.median(resident(pid) for pid in self.workers()))

    def wakeups(self, seconds: float) -> tuple[float, float]:
        """Wake-ups a second of the daemon and of a worker while nobody asks anything."""
        worker = min(self.workers())
        before = switches(self.pid), switches(worker)
        time.sleep(seconds)
        after = switches(self.pid), switches(worker)
        return (after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds


class Srvd(Server):
    name = "srvd"

    def command(self) -> list[str]:
        return [str(BIN / "srvd"), "start", "app:app", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{self.port}",
                "--socket", self.control]  # fmt: skip

    def parent(self) -> int:
        return max(children(self.pid))  # the zygote of the newest generation

    def all_workers(self) -> set[int]:
        return set().union(*(children(zygote) for zygote in children(self.pid)))

    def scale_command(self, more: int) -> list[str]:
        return [str(BIN / "srvctl"), "-s", self.control, "scale", f"+{more}"]

    def status_command(self) -> list[str]:
        return [str(BIN / "srvctl"), "-s", self.control, "--json", "status"]

    def status_rpc(self, count: int) -> float:
        with Client.connect(self.control) as client:
            return median_of(lambda: client.call("status", {}), count)


class Gunicorn(Server):
    name = "gunicorn"
    bin = Path()

    def command(self) -> list[str]:
        return [str(self.bin / "gunicorn"), "app:app", "-w", str(WORKERS), "-b", f"127.0.0.1:{self.port}",
                "--control-socket", self.control]  # fmt: skip

    def parent(self) -> int:
        return self.pid

    def scale_command(self, more: int) -> list[str]:
        return [str(self.bin / "gunicornc"), "-s", self.control, "-c", f"worker add {more}"]

    def status_command(self) -> list[str]:
        return [str(self.bin / "gunicornc"), "-s", self.control, "-j", "-c", "show workers"]

    def status_rpc(self, count: int) -> float:
        script = (
            "import sys, time, statistics\n"
            "from gunicorn.ctl.client import ControlClient\n"
            "c = ControlClient(sys.argv[1]); c.connect(); t = []\n"
            "for _ in range(int(sys.argv[2])):\n"
            "    a = time.perf_counter(); c.send_command('show workers'); t.append(time.perf_counter() - a)\n"
            "print(statistics.median(t))\n"
        )
        done = subprocess.run(
            [str(self.bin / "python"), "-c", script, self.control, str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        return float(done.stdout)


def until(claim: Callable[[], bool], within: float = 30.0) -> None:
    deadline = time.perf_counter() + within
    while not claim():
        if time.perf_counter() > deadline:
            msg = "not within the time allowed"
            raise TimeoutError(msg)
        time.sleep(0.0005)


def run(command: list[str]) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def children(pid: int) -> set[int]:
    try:
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except FileNotFoundError:
        return set()


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def proportional(pid: int) -> int:
    """Bytes, each page divided by the number of processes that share it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def switches(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("voluntary_ctxt_switches:")[1].split()[0])


def median_of(call: Callable[[], object], count: int) -> float:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


Figures = dict[str, list[float]]


def one_round(server: Server, figures: Figures, *, quiet: float) -> None:
    def note(row: str, value: float) -> None:
        figures.setdefault(row, []).append(value)

    try:
        note("start to first 200 [ms]", server.start() * 1e3)
        time.sleep(1.2)  # ready for longer than a second, as a worker that is killed at night is
        daemon, worker = server.memory()
        note("resident daemon [MiB]", daemon / 2**20)
        note("daemon, shared pages by their share (PSS) [MiB]", proportional(server.pid) / 2**20)
        note("resident worker [MiB]", worker / 2**20)
        note("kill -9 to respawned [ms]", server.respawn() * 1e3)
        note("status, whole command [ms]", server.status() * 1e3)
        note("status, RPC alone [ms]", server.status_rpc(200) * 1e3)
        note("reload of 4 [ms]", server.reload() * 1e3)
        note("scale 4 to 8, whole command [ms]", server.scale() * 1e3)
        if quiet:
            time.sleep(12)  # what follows a reload (the bake) is over
            idle = server.wakeups(quiet)
            note("idle wake-ups a second, daemon", idle[0])
            note("idle wake-ups a second, worker", idle[1])
    finally:
        server.stop()


def srvd_alone(folder: Path) -> Figures:
    """Rows that the other has no counterpart for."""
    figures: Figures = {}
    server = Srvd(folder)
    server.start()
    try:
        with Client.connect(server.control) as client:
            for _ in range(5):
                figures.setdefault("scale 4 to 8, RPC alone [ms]", []).append(
                    median_of(lambda: client.call("scale", {"size": 8}), 1) * 1e3
                )
                client.call("scale", {"size": 4})
            began = time.perf_counter()
            client.call("scale", {"size": 200})
            figures["scale 4 to 200, RPC alone [ms]"] = [(time.perf_counter() - began) * 1e3]
            figures["status of 200, RPC alone [ms]"] = [median_of(lambda: client.call("status", {}), 50) * 1e3]
        ping = median_of(lambda: run([str(BIN / "srvctl"), "-s", server.control, "ping"]), 15)
        click = median_of(lambda: run([sys.executable, "-c", "import click"]), 15)
        figures["srvctl ping, whole command [ms]"] = [ping * 1e3]
        figures["the same as a multiple of python -c 'import click'"] = [ping / click]
    finally:
        server.stop()
    return figures


def find_gunicorn(folder: Path, given: str) -> Path:
    if given:
        return Path(given)
    venv.create(folder / "gunicorn", with_pip=True)
    run([str(folder / "gunicorn/bin/pip"), "install", "--quiet", "gunicorn==27.0.1"])
    return folder / "gunicorn/bin"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--gunicorn", default="", help="folder with gunicorn's programs")
    options.add_argument(
        "--quiet", type=float, default=10.0, help="seconds of counting wake-ups, in the first round; 0: none"
    )
    options.add_argument("--json", default="", help="also write the figures to this file")
    given = options.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed server has its bytecode
    with tempfile.TemporaryDirectory(prefix="srvd-bench-") as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP)
        Gunicorn.bin = find_gunicorn(folder, given.gunicorn)
        ours: Figures = {}
        theirs: Figures = {}
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)  # noqa: T201 - a program that prints
            one_round(Srvd(folder), ours, quiet=0 if number else given.quiet)
            one_round(Gunicorn(folder), theirs, quiet=0 if number else given.quiet)
        alone = srvd_alone(folder)
    print(f"{'':52}{'srvd':>10}{'gunicorn':>10}{'ratio':>8}")  # noqa: T201
    for row, values in ours.items():
        mine, other = statistics.median(values), statistics.median(theirs[row])
        ratio = f"{mine / other:8.2f}" if other else "       –"
        print(f"{row:52}{mine:10.2f}{other:10.2f}{ratio}")  # noqa: T201
    for row, values in alone.items():
        print(f"{row:52}{statistics.median(values):10.2f}")  # noqa: T201
    if given.json:
        Path(given.json).write_text(json.dumps({"srvd": ours, "gunicorn": theirs, "alone": alone}, indent=1))


if __name__ == "__main__":
    main()
