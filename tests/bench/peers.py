"""srvd beside other WSGI servers, in turns within one run. Not a test.

    python -m tests.bench.peers [--rounds 2] [--seconds 2] [--peers BIN/DIR] [--rows new,hello] [--servers srvd,granian]
                                [--chart FILE.svg] [--json FILE]

The figure that counts is the CPU time that the whole server spends on a request: a noisy machine moves it least. The
servers share one core, the client has the other. Needs wrk (Debian's package) and openssl; bjoern is
built with libev-dev. What is not there is left out and said.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.bench.chart import draw
from tests.bench.clients import Result, comes_up, latencies, over_unix, wrk
from tests.bench.servers import NATIVE, PACKAGES, SERVERS, Load, Place

APP = """
import json, time
def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "12")])
    return [b"Hello world\\n"]
MEBIBYTE = b"x" * 1048576
def large(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1048576")])
    return [MEBIBYTE]
BLOCK = b"x" * 1024
def generator(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(100):
        yield BLOCK
def file(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "102400")])
    return environ["wsgi.file_wrapper"](open("file.bin", "rb"), 65536)
def upload(environ, start_response):
    stream, size = environ["wsgi.input"], 0
    while block := stream.read(65536):
        size += len(block)
    if size != int(environ.get("CONTENT_LENGTH") or 0):
        raise ValueError(size)
    return hello(environ, start_response)
def echo(environ, start_response):
    data = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"0")
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
UPLOAD = 'wrk.method = "POST"\nwrk.body = string.rep("x", 10485760)\n'
CLOSE = 'wrk.headers["Connection"] = "close"\n'
# What srvd remembers of heads is of no use here: no two requests are alike, not even on one connection.
NEVER_THE_SAME = BROWSER + (
    "local count = 0\n"
    "request = function()\n"
    "  count = count + 1\n"
    '  wrk.headers["Cookie"] = "session=" .. count .. "; theme=dark"\n'
    '  return wrk.format("GET", "/item/" .. count .. "?page=" .. count)\n'
    "end\n"
)
SERVER_CORE, CLIENT_CORE = 0, 1


class Row(NamedTuple):
    title: str
    load: Load
    script: str = ""
    connections: int = 32
    both_cores: bool = False
    tls: bool = False
    unix: bool = False


ROWS = {
    "new": Row("20 browser headers, each request another one", Load("hello"), NEVER_THE_SAME),
    "hello": Row("hello world", Load("hello")),
    "headers": Row("20 browser headers, seen before", Load("hello"), BROWSER),
    "echo": Row("JSON POST", Load("echo"), POST),
    "close": Row("a connection for each request", Load("hello"), CLOSE),
    "tls": Row("TLS, keep-alive", Load("hello"), tls=True),
    "handshake": Row("TLS, a handshake for each request", Load("hello"), CLOSE, tls=True),
    "unix": Row("Unix socket", Load("hello"), unix=True),
    "large": Row("1 MiB response", Load("large"), connections=8),
    "generator": Row("generator of 100 x 1 KiB", Load("generator")),
    "file": Row("file_wrapper, 100 KiB", Load("file")),
    "upload": Row("10 MiB upload", Load("upload"), UPLOAD, connections=4),
    "sleep": Row("10 ms sleep in each, 16 threads", Load("sleep", threads=16)),
    "mixed": Row("10 ms sleep in one of 20, 16 threads", Load("mixed", threads=16)),
    "four": Row("hello world, 4 workers", Load("hello", workers=4), both_cores=True),
}
LATENCY_RATE = 2000.0  # requests a second, about a fifth of what the slowest server here can do at all


class Figure(NamedTuple):
    """One server in one row, once."""

    rate: float  # requests a second
    cpu: float  # µs of the whole server for a request
    pss: float  # MiB of the whole server, afterwards
    delays: tuple[float, ...] = ()  # ms: p50, p99, p99.9 at LATENCY_RATE; of hello world alone


def measure(name: str, row: Row, peers: Path, folder: Path, seconds: int) -> Figure | None:
    """None if this server has no such mode, does not come up, or answers otherwise than by 2xx."""
    unix = folder / "web.sock" if row.unix else None
    if unix is not None:
        unix.unlink(missing_ok=True)
    place = Place(peers, folder, _free_port(), unix, folder / "both.pem" if row.tls else None)
    command = SERVERS[name](row.load, place)
    if command is None or not Path(command[0]).exists():
        return None
    cores = {SERVER_CORE, CLIENT_CORE} if row.both_cores else {SERVER_CORE}
    server = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509 - one thread here
    )  # fmt: skip
    try:
        if not comes_up(server, place.port, unix, tls=row.tls):
            return None
        _ask(row, place, 1)
        before = _cpu(server.pid)
        result = _ask(row, place, seconds)
        if not result.answered:
            return None
        cpu = (_cpu(server.pid) - before) / result.answered * 1e6
        return Figure(result.rate, cpu, _pss(server.pid), _delays(place.port) if row is ROWS["hello"] else ())
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            _kill(server)


def _ask(row: Row, place: Place, seconds: int) -> Result:
    if place.unix is not None:
        return over_unix(place.unix, seconds)
    url = f"http{'s' if row.tls else ''}://127.0.0.1:{place.port}/"
    return wrk(url, row.script, place.folder, seconds, connections=row.connections, core=CLIENT_CORE)


def _delays(port: int) -> tuple[float, ...]:
    try:
        taken = latencies(port, LATENCY_RATE, 2.0)
    except OSError:
        return ()
    return tuple(taken[int(len(taken) * share)] for share in (0.5, 0.99, 0.999))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _cpu(pid: int) -> float:
    """CPU seconds of the process, and of its children that live."""
    return sum(sum(one.cpu_times()[:2]) for one in _family(pid))


def _pss(pid: int) -> float:
    """MiB of the process and its children: each page by the share of those who have it."""
    return float(sum(one.memory_full_info().pss for one in _family(pid))) / 2**20


def _kill(server: subprocess.Popen[bytes]) -> None:
    for one in reversed(_family(server.pid)):
        one.kill()
    server.wait(20)


def find_peers(folder: Path, given: str) -> Path:
    if given:
        return Path(given)
    venv.create(folder / "peers", with_pip=True)
    for package in PACKAGES:
        done = subprocess.run([str(folder / "peers/bin/pip"), "install", "--quiet", package], capture_output=True)
        if done.returncode:
            print(f"left out: {package} cannot be installed here")  # noqa: T201 - a program that prints
    return folder / "peers/bin"


def _prepare(folder: Path) -> None:
    (folder / "app.py").write_text(APP)
    (folder / "file.bin").write_bytes(b"x" * 102400)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "chain.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (folder / "both.pem").write_text((folder / "chain.pem").read_text() + (folder / "key.pem").read_text())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--seconds", type=int, default=2)
    options.add_argument("--peers", default="", help="folder with the other servers' programs")
    options.add_argument("--rows", default=",".join(ROWS))
    options.add_argument("--servers", default=",".join(SERVERS))
    options.add_argument("--chart", default="", help="file for a chart of all rows, SVG")
    options.add_argument("--json", default="", help="file for all figures")
    given = options.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed server has its bytecode
    optimized = "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    build = "with" if optimized else "without"
    print(f"CPython {platform.python_version()}, built {build} profile-guided optimization: {sys.executable}")  # noqa: T201
    medians: dict[str, dict[str, Figure]] = {}
    with tempfile.TemporaryDirectory(prefix="srvd-bench-") as name:
        folder = Path(name)
        _prepare(folder)
        peers = find_peers(folder, given.peers)
        for key in given.rows.split(","):
            figures: dict[str, list[Figure]] = {}
            for _ in range(given.rounds):
                for server in given.servers.split(","):
                    figure = measure(server, ROWS[key], peers, folder, given.seconds)
                    if figure is not None:
                        figures.setdefault(server, []).append(figure)
            medians[key] = {server: _median(several) for server, several in figures.items()}
            _print(ROWS[key], figures, medians[key])
            if given.json:
                Path(given.json).write_text(json.dumps(medians))
    if given.chart:
        shown = {ROWS[key].title: {name: f.cpu for name, f in row.items()} for key, row in medians.items()}
        Path(given.chart).write_text(draw(shown, NATIVE))


def _median(several: list[Figure]) -> Figure:
    rate, cpu, pss, _ = zip(*several, strict=True)
    delays = [one.delays for one in several if one.delays]
    middle = tuple(statistics.median(values) for values in zip(*delays, strict=True))
    return Figure(statistics.median(rate), statistics.median(cpu), statistics.median(pss), middle)


def _print(row: Row, figures: dict[str, list[Figure]], medians: dict[str, Figure]) -> None:
    """A line for each server: medians, the CPU time of each round in brackets, and the ratio to srvd's."""
    print(f"\n{row.title:46}{'CPU µs':>9}{'of srvd':>9}{'requests/s':>12}{'MiB':>7}  rounds; p50, p99, p99.9 [ms]")  # noqa: T201
    ours = medians["srvd"].cpu if "srvd" in medians else 0.0
    for server, figure in sorted(medians.items(), key=lambda item: item[1].cpu):
        ratio = f"{figure.cpu / ours:9.2f}" if ours else f"{'':9}"
        rounds = " ".join(f"{one.cpu:.1f}" for one in figures[server])
        delays = "; " + ", ".join(f"{delay:.2f}" for delay in figure.delays) if figure.delays else ""
        line = f"  {server:44}{figure.cpu:9.1f}{ratio}{figure.rate:12.0f}{figure.pss:7.1f}  {rounds}{delays}"
        print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
