"""What it costs that a daemon may die: starts that adopt beside cold ones, and what an ordinary start pays. Not a test.

    python -m tests.bench.adoption [--rounds 15] [--workers 4]

Each round starts srvd anew, kills its daemon with SIGKILL, and starts it again. CPU time is the
scheduler's own count (/proc/PID/schedstat), so it is true to the microsecond.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from srvd.client.connection import Client
from srvd.daemon.recovery import envelope
from srvd.daemon.recovery.state_file import unseal
from srvd.daemon.state import handover
from srvd.errors import SrvdError
from tests.support.waiting import wait_for

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"

OURS = (
    "family.callers", "family.lock", "recovery.envelope", "recovery.fd_store", "recovery.saver", "recovery.state_file",
)  # fmt: skip
"""The modules of the daemon that are there for its death, and that every start imports."""


class Start(NamedTuple):
    answers: float  # seconds until status answers
    whole: float  # and until all workers serve
    cpu: float  # of the daemon, until then


class Server:
    def __init__(self, folder: Path, workers: int) -> None:
        (folder / "app.py").write_text(APP)
        self.folder = folder
        self.workers = workers
        self.socket = folder / "control.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Start:
        flags = ["--socket", str(self.socket), "--workers", str(self.workers), "--bind", "127.0.0.1:0"]
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [str(Path(sys.executable).parent / "srvd"), "start", "app:app", *flags],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: self._serving() >= 0, 60, 0.002)
        answers = time.perf_counter() - began
        wait_for(lambda: self._serving() == self.workers, 60, 0.002)
        whole = time.perf_counter() - began
        spent = int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0])
        return Start(answers, whole, spent / 1e9)

    def _serving(self) -> int:
        try:
            with Client.connect(str(self.socket), timeout=20) as client:
                (pool,) = client.call("status", {})["pools"] or [{"workers": []}]
        except SrvdError:
            return -1
        return sum(worker["state"] == "serving" for worker in pool["workers"])

    def state(self) -> bytes:
        path = Path(f"{self.socket}.state")
        wait_for(lambda: path.exists() and all(f"#{n}".encode() in path.read_bytes() for n in range(1, self.workers)))
        return path.read_bytes()

    def end(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)
        self.process.wait(60)


def imports() -> float:
    """Seconds that an ordinary start spends with the modules of `OURS`."""
    command = [sys.executable, "-X", "importtime", "-c", "import srvd.daemon.entry.start, srvd.daemon.recovery.saver"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.findall(rf"(\d+) \| +\d+ \| +srvd\.daemon\.(?:{'|'.join(map(re.escape, OURS))})\n", told)
    assert len(found) == len(OURS), told
    return sum(map(int, found)) / 1e6


def writing(sealed: bytes) -> float:
    """Seconds of CPU that one writing of this state takes, but for its write(2)."""
    read = envelope.unpack(unseal(sealed).data)
    found = handover.read(read.state)
    began = time.process_time()
    for _ in range(100):
        envelope.pack(read._replace(state=handover.pack(found)))
    return (time.process_time() - began) / 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, default=4)
    asked = parser.parse_args()
    cold, adopted = list[Start](), list[Start]()
    sealed = b""
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder), asked.workers)
            cold.append(server.start())
            sealed = server.state()
            server.end(signal.SIGKILL)
            adopted.append(server.start())
            server.end(signal.SIGTERM)
    out = sys.stdout.write
    out(f"{'[ms], median and least of ' + str(asked.rounds):44} {'cold':>16} {'adopting':>16}\n")
    for name in Start._fields:
        out(f"{name:44}")
        for starts in (cold, adopted):
            times = [getattr(one, name) * 1000 for one in starts]
            out(f" {statistics.median(times):8.1f} {min(times):7.1f}")
        out("\n")
    out(f"imports of {len(OURS)} modules, in every start: {min(imports() for _ in range(9)) * 1000:.1f} ms\n")
    out(f"one writing of a state of {len(sealed)} bytes: {writing(sealed) * 1000:.2f} ms\n")


if __name__ == "__main__":
    main()
