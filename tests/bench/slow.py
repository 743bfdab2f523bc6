"""Slowloris: what 2,000 clients that send their heads byte by byte do to a healthy one, on one worker. Not a test.

    python -m tests.bench.slow [--clients 2000] [--seconds 5]

Alternates between with and without them, and prints the healthy client's rates and their ratio.
"""

from __future__ import annotations

import argparse
import selectors
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.bench.memory import HELLO, free_port, running, srvd


class Slow:
    """Clients that send one byte of a head each second, all from one thread."""

    def __init__(self, port: int, count: int) -> None:
        self._over = threading.Event()
        self._clients = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            client.setblocking(False)
            self._clients.append(client)
        self._thread = threading.Thread(target=self._drip)
        self._thread.start()

    def _drip(self) -> None:
        while not self._over.wait(1.0):
            for client in self._clients:
                try:
                    client.send(b"x")
                except OSError:  # it was thrown out after header_timeout
                    continue

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        for client in self._clients:
            client.close()


def rate(port: int, seconds: float) -> float:
    """Requests a second of one healthy client on a connection that it keeps."""
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    count = 0
    with socket.create_connection(("127.0.0.1", port)) as client:
        waiter = selectors.DefaultSelector()
        waiter.register(client, selectors.EVENT_READ)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            client.sendall(request)
            waiter.select()
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            count += 1
        waiter.close()
    return count / seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clients", type=int, default=2000)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    alone, beside = [], []
    with tempfile.TemporaryDirectory(prefix="srvd-bench-") as name:
        folder = Path(name)
        (folder / "hello.py").write_text(HELLO)
        port = free_port()
        (folder / "srvd.toml").write_text(f"[pools.web]\napp = 'hello:app'\nmax_connections = {given.clients + 100}\n")
        command = [*srvd(folder, "hello:app", port, 1), "-c", str(folder / "srvd.toml")]
        with running(command, folder, port):
            for _ in range(given.rounds):
                alone.append(rate(port, given.seconds))
                slow = Slow(port, given.clients)
                beside.append(rate(port, given.seconds))
                slow.end()
    mine, with_them = statistics.median(alone), statistics.median(beside)
    print(f"alone {mine:.0f} requests/s, beside {given.clients} slow clients {with_them:.0f}: {with_them / mine:.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
