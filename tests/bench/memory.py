"""Memory beside gunicorn 27.0.1, and what idle connections cost. Not a test.

    python -m tests.bench.memory [--peers BIN/DIR] [--connections 10000]

gunicorn runs in the environment of the tests if it is installed there, else in the one that is named.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]

HELLO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


@contextlib.contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[psutil.Process]:
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"}
    server = subprocess.Popen(
        command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        time.sleep(1)
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, times: int) -> None:
    """So that what an application makes at its first requests is there."""
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while client.recv(65536):
                continue


def leaves(process: psutil.Process) -> list[psutil.Process]:
    """The workers: descendants without children."""
    return [one for one in process.children(recursive=True) if not one.children()]


def srvd(folder: Path, app: str, port: int, workers: int) -> list[str]:
    return [str(BIN / "srvd"), "start", app, "--workers", str(workers), "--bind", f"127.0.0.1:{port}",
            "--socket", str(folder / "srvd.sock")]  # fmt: skip


def gunicorn(bin_: Path, app: str, port: int, workers: int, *more: str) -> list[str]:
    return [str(bin_ / "python"), "-m", "gunicorn", app, "-w", str(workers), "-b", f"127.0.0.1:{port}",
            "--no-control-socket", *more]  # fmt: skip


def worker_rss(command: list[str], folder: Path, port: int) -> float:
    """MiB of the largest worker."""
    with running(command, folder, port) as process:
        ask(port, 50)
        return float(max(one.memory_info().rss for one in leaves(process)) / 2**20)


def all_pss(command: list[str], folder: Path, port: int) -> float:
    """MiB of the workers together, each shared page counted in parts."""
    with running(command, folder, port) as process:
        ask(port, 100)
        return float(sum(one.memory_full_info().pss for one in leaves(process)) / 2**20)


def idle_connections(folder: Path, count: int) -> tuple[float, float]:
    """Bytes of the worker for one idle keep-alive connection, and its wake-ups a second while they idle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_port()
    (folder / "srvd.toml").write_text(
        f'[control]\nsocket = "{folder}/srvd.sock"\n[listeners.web]\nbind = ["127.0.0.1:{port}"]\n'
        f'[pools.web]\napp = "hello:app"\nworkers = 1\nmax_connections = {count + 100}\nkeepalive_timeout = "300s"\n'
    )
    with running([str(BIN / "srvd"), "start", "-c", str(folder / "srvd.toml")], folder, port) as process:
        ask(port, 20)
        worker = leaves(process)[0]
        before = worker.memory_info().rss
        clients = []
        for number in range(count):
            client = socket.socket()
            client.bind((f"127.0.0.{2 + number % 8}", 0))  # ports of one address would run out
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
            clients.append(client)
        after = worker.memory_info().rss
        switches = worker.num_ctx_switches().voluntary
        time.sleep(5)
        woken = (worker.num_ctx_switches().voluntary - switches) / 5
        for client in clients:
            client.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return (after - before) / count, woken


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "--peers", default=str(BIN), help="folder with an interpreter that has gunicorn, Flask and Django"
    )
    options.add_argument("--connections", type=int, default=10_000)
    given = options.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed server has its bytecode
    bin_ = Path(given.peers)
    with tempfile.TemporaryDirectory(prefix="srvd-bench-") as name:
        folder = Path(name)
        (folder / "hello.py").write_text(HELLO)
        rows = []
        for title, app, measure, workers in (
            ("Flask, one worker, RSS [MiB]", "tests.support.apps.flask_app:app", worker_rss, 1),
            ("Django, 4 workers together, PSS [MiB]", "tests.support.apps.django_app:app", all_pss, 4),
        ):
            port = free_port()
            ours = measure(srvd(folder, app, port, workers), folder, port)
            port = free_port()
            more = ("-k", "gthread", "--threads", "4") if workers == 1 else ()
            rows.append((title, ours, measure(gunicorn(bin_, app, port, workers, *more), folder, port)))
        each, woken = idle_connections(folder, given.connections)
    print(f"{'':44}{'srvd':>10}{'gunicorn':>10}{'ratio':>8}")  # noqa: T201 - a program that prints
    for title, ours, theirs in rows:
        print(f"{title:44}{ours:10.1f}{theirs:10.1f}{ours / theirs:8.2f}")  # noqa: T201
    print(f"{given.connections} idle connections on one worker: {each:.0f} bytes each, {woken:.1f} wake-ups a second")  # noqa: T201


if __name__ == "__main__":
    main()
