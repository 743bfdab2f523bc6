"""srvd beside other WSGI servers under wrk, in turns within one run. Not a test.

    python -m tests.bench.peers [--rounds 3] [--seconds 4] [--peers BIN/DIR] [--rows hello,body] [--servers srvd]

The figure that counts is the CPU time that the whole server spends on a request: a noisy machine moves it least. The
servers share one core, wrk has the other. Needs wrk (Debian's package); bjoern is built with libev-dev. What is not
there is left out and said.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

APP = """
import json, time
def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "12")])
    return [b"Hello world\\n"]
BODY = b"x" * 10240
def body(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "10240")])
    return [BODY]
def echo(environ, start_response):
    data = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    out = json.dumps(data).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(out)))])
    return [out]
def sleep(environ, start_response):
    time.sleep(0.01)
    return hello(environ, start_response)
COUNT = 0
def mixed(environ, start_response):
    global COUNT
    COUNT += 1
    return sleep(environ, start_response) if COUNT % 20 == 0 else hello(environ, start_response)
"""
BROWSER = "".join(
    f'wrk.headers["{name}"] = "{value}"\n'
    for name, value in {
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
        "Accept-Language": "en-GB,en;q=0.9,de;q=0.8", "Accept-Encoding": "gzip, deflate, br, zstd",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Cache-Control": "max-age=0", "Pragma": "no-cache", "DNT": "1", "Upgrade-Insecure-Requests": "1",
        "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Sec-Fetch-User": "?1",
        "Sec-CH-UA-Platform": "Linux", "Sec-CH-UA-Mobile": "?0", "Referer": "https://shop.example/list?page=3",
        "Cookie": "session=0123456789abcdef0123456789abcdef; theme=dark", "If-None-Match": "abcdef0123456789",
        "X-Requested-With": "XMLHttpRequest", "Priority": "u=0, i", "TE": "trailers",
    }.items()
)  # fmt: skip
POST = (
    'wrk.method = "POST"\n'
    'wrk.headers["Content-Type"] = "application/json"\n'
    'wrk.body = \'{"name": "x", "n": [1, 2, 3]}\'\n'
)
# What srvd remembers of heads is of no use here: no two requests are alike, not even on one connection.
NEVER_THE_SAME = BROWSER + (
    "local count = 0\n"
    "request = function()\n"
    "  count = count + 1\n"
    '  wrk.headers["Cookie"] = "session=" .. count .. "; theme=dark"\n'
    '  return wrk.format("GET", "/item/" .. count .. "?page=" .. count)\n'
    "end\n"
)

BIN = Path(sys.executable).parent
SERVER_CORE, CLIENT_CORE = 0, 1


class Row(NamedTuple):
    title: str
    app: str
    script: str = ""
    workers: int = 1
    threads: int = 1
    cores: tuple[int, ...] = (SERVER_CORE,)


ROWS = {
    "hello": Row("hello world", "hello"),
    "body": Row("10 KiB body", "body"),
    "echo": Row("JSON echo POST", "echo", POST),
    "headers": Row("20 browser headers", "hello", BROWSER),
    "new": Row("20 browser headers, each request another one", "hello", NEVER_THE_SAME),
    "four": Row("hello world, 4 workers", "hello", workers=4, cores=(SERVER_CORE, CLIENT_CORE)),
    "sleep": Row("10 ms sleep in every request, 16 threads", "sleep", threads=16),
    "mixed": Row("10 ms sleep in one of 20, 16 threads", "mixed", threads=16),
}


class Figure(NamedTuple):
    rate: float  # requests a second
    p99: float  # ms
    cpu: float  # µs of the whole server for a request


Command = Callable[[Path, Row, int, Path], list[str] | None]


def _srvd(peers: Path, row: Row, port: int, folder: Path) -> list[str]:
    (folder / "srvd.toml").write_text(
        f'[daemon]\nlog_level = "error"\n[control]\nsocket = "{folder}/srvd.sock"\n'
        f'[listeners.web]\nbind = ["127.0.0.1:{port}"]\n'
        f'[pools.web]\napp = "app:{row.app}"\nworkers = {row.workers}\n'
        + (f"threads = {row.threads}\n" if row.threads > 1 else "")
    )
    return [str(BIN / "srvd"), "start", "-c", str(folder / "srvd.toml")]


def _gunicorn(kind: str) -> Command:
    def command(peers: Path, row: Row, port: int, folder: Path) -> list[str] | None:
        words = [str(peers / "gunicorn"), f"app:{row.app}", "-b", f"127.0.0.1:{port}", "-w", str(row.workers),
                 "-k", kind, "--no-control-socket", "--log-level", "error"]  # fmt: skip
        if row.threads > 1 and kind == "sync":
            return None
        return words + (["--threads", str(max(row.threads, 2))] if kind == "gthread" else [])

    return command


def _granian(peers: Path, row: Row, port: int, folder: Path) -> list[str] | None:
    return [str(peers / "granian"), "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port), "--workers",
            str(row.workers), "--blocking-threads", str(row.threads), "--no-access-log", "--log-level", "error",
            f"app:{row.app}"]  # fmt: skip


def _bjoern(peers: Path, row: Row, port: int, folder: Path) -> list[str] | None:
    if row.workers > 1 or row.threads > 1:
        return None
    return [str(peers / "python"), "-c", f"import bjoern, app; bjoern.run(app.{row.app}, '127.0.0.1', {port})"]


def _waitress(peers: Path, row: Row, port: int, folder: Path) -> list[str] | None:
    if row.workers > 1:
        return None
    return [
        str(peers / "waitress-serve"),
        f"--listen=127.0.0.1:{port}",
        f"--threads={max(row.threads, 4)}",
        f"app:{row.app}",
    ]


SERVERS: dict[str, Command] = {
    "srvd": _srvd,
    "granian": _granian,
    "bjoern": _bjoern,
    "gunicorn sync": _gunicorn("sync"),
    "gunicorn gthread": _gunicorn("gthread"),
    "gunicorn gevent": _gunicorn("gevent"),
    "waitress": _waitress,
}


def measure(name: str, row: Row, peers: Path, folder: Path, seconds: int) -> Figure | None:
    """One server, one row, once; None if this server has no such mode or does not come up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = SERVERS[name](peers, row, port, folder)
    if command is None or not Path(command[0]).exists():
        return None
    server = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))},
        preexec_fn=lambda: os.sched_setaffinity(0, row.cores),  # noqa: PLW1509 - one thread here
    )  # fmt: skip
    try:
        if not _comes_up(server, port):
            return None
        _wrk(port, row, folder, 1)
        before = _cpu(server.pid)
        rate, p99, count = _wrk(port, row, folder, seconds)
        return Figure(rate, p99, (_cpu(server.pid) - before) / max(count, 1) * 1e6)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(20)


def _comes_up(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                time.sleep(0.5)
                return True
        except OSError:
            time.sleep(0.02)
    return False


def _wrk(port: int, row: Row, folder: Path, seconds: int) -> tuple[float, float, int]:
    command = ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", "-c32", f"-d{seconds}s", "--latency"]
    if row.script:
        script = folder / "wrk.lua"
        script.write_text(row.script)
        command += ["-s", str(script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=seconds + 60)
    text = done.stdout
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if errors or not (found := re.search(r"(\d+) requests in", text)):
        return 0.0, 0.0, 0
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])  # type: ignore[index]  # wrk always prints it
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]  # likewise
    return rate, float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], int(found[1])


def _cpu(pid: int) -> float:
    """CPU seconds of the process, and of its children that live."""
    root = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in [root, *root.children(recursive=True)])


def find_peers(folder: Path, given: str) -> Path:
    if given:
        return Path(given)
    venv.create(folder / "peers", with_pip=True)
    for package in ("gunicorn==27.0.1", "gevent", "packaging", "granian==2.8.7", "bjoern==3.2.2", "waitress==3.0.2"):
        done = subprocess.run([str(folder / "peers/bin/pip"), "install", "--quiet", package], capture_output=True)
        if done.returncode:
            print(f"left out: {package} cannot be installed here")  # noqa: T201 - a program that prints
    return folder / "peers/bin"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--peers", default="", help="folder with the other servers' programs")
    options.add_argument("--rows", default=",".join(ROWS))
    options.add_argument("--servers", default=",".join(SERVERS))
    given = options.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed server has its bytecode
    with tempfile.TemporaryDirectory(prefix="srvd-bench-") as name:
        folder = Path(name)
        (folder / "app.py").write_text(APP)
        peers = find_peers(folder, given.peers)
        for key in given.rows.split(","):
            row = ROWS[key]
            figures: dict[str, list[Figure]] = {}
            for _ in range(given.rounds):
                for server in given.servers.split(","):
                    figure = measure(server, row, peers, folder, given.seconds)
                    if figure is not None and figure.rate:
                        figures.setdefault(server, []).append(figure)
            _print(row, figures)


def _print(row: Row, figures: dict[str, list[Figure]]) -> None:
    print(f"\n{row.title:44}{'requests/s':>11}{'p99 ms':>9}{'CPU µs':>9}{'CPU, srvd = 1':>15}")  # noqa: T201
    ours = statistics.median(f.cpu for f in figures["srvd"]) if "srvd" in figures else 0.0
    for server, several in figures.items():
        rate, p99, cpu = (statistics.median(values) for values in zip(*several, strict=True))
        print(f"  {server:42}{rate:11.0f}{p99:9.2f}{cpu:9.1f}{cpu / ours if ours else 0.0:15.2f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
