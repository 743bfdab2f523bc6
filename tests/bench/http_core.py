"""What one request costs: of the pure core alone, and of a whole worker under a keep-alive client. Not a test.

    python -m tests.bench.http_core [--seconds 3] [--connections 16]

Prints µs of CPU a request. llhttp alone is what any server on httptools pays: the target and the fields as bytes.
"Seen" are heads that come again and again, as a client on a kept connection says them; "new" ones have another path and
another cookie each time: parse, guard and environ together, nothing remembered. The worker's are split into its own
code and the kernel's, read from /proc/PID/stat.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

from httptools import HttpRequestParser

from srvd.http.h1.head import HeadReader, Request
from srvd.http.h1.limits import Limits
from srvd.http.h1.reader import Inbound
from srvd.http.h1.response import check_fields, check_status, open_response
from srvd.http.h1.sink import Ends
from srvd.linux.scoreboard import Board
from srvd.log import Log
from srvd.worker.net.responder import Responder
from srvd.worker.observe.recorder import Recorder
from srvd.worker.wsgi.application import WsgiApplication
from srvd.worker.wsgi.environ import EnvironSink
from srvd.worker.wsgi.exchange import Exchange
from tests.support.worker_rig import Client, Rig

TWO = b"GET /hello?x=1 HTTP/1.1\r\nHost: localhost:8000\r\nAccept: */*\r\n\r\n"
TEN = (
    b"GET /hello?x=1 HTTP/1.1\r\nHost: localhost:8000\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n"
    b"Cookie: sessionid=abcdefghijklmnopqrstuvwxyz; csrftoken=0123456789\r\nUpgrade-Insecure-Requests: 1\r\n"
    b"Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\r\n"
)


NEW = [
    TEN.replace(b"/hello?x=1", b"/hello/%d?x=1" % number).replace(b"0123456789", b"%010d" % number)
    for number in range(4_000)
]
"""More than are remembered."""


class Parts:
    """What llhttp finds, kept as it comes."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.fields = []


def hello(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "12")])
    return [b"Hello world!"]


def show(what: str, cost: float | str) -> None:
    sys.stdout.write(f"{what:20} {cost if isinstance(cost, str) else f'{cost:6.2f}'}\n")


def _nobody(exchange: Responder, data: bytes) -> None:
    """Where write() would go."""


def timed(call: Callable[[], object], rounds: int = 20_000) -> float:
    """µs of CPU a call, the best of seven tries: the machine may be busy with something else."""
    best = float("inf")
    for _ in range(7):
        began = time.thread_time()
        for _ in range(rounds):
            call()
        best = min(best, time.thread_time() - began)
    return best / rounds * 1e6


def core() -> None:
    limits = Limits()
    sink = EnvironSink("web/1#1", multithread=False)
    inbound = Inbound(HeadReader(limits, sink), sink.connection(Ends("127.0.0.1", "50000")))
    parser = HttpRequestParser(Parts())
    several = cycle(NEW)
    show("2 fields, llhttp", timed(lambda: parser.feed_data(TWO)))
    show("2 fields, seen", timed(lambda: inbound.receive(TWO)))
    show("10 fields, llhttp", timed(lambda: parser.feed_data(next(several))))
    show("10 fields, seen", timed(lambda: inbound.receive(TEN)))
    show("10 fields, new", timed(lambda: inbound.receive(next(several))))
    headers = [("Content-Type", "text/plain"), ("Content-Length", "12")]
    status, fields = check_status("200 OK"), check_fields(headers)
    stamp = b"Server: srvd\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    show("response fields", timed(lambda: check_fields(headers)))
    show("response head", timed(lambda: open_response(status, fields, stamp, False, 1, True, 12)))
    board = Board.create(1)
    recorder = Recorder(board.lane(0), lambda: True)
    application = WsgiApplication(hello, Log(2), lambda: stamp)
    request = inbound.receive(TWO)
    assert isinstance(request, Request)
    exchange = Exchange(application, request, None, _nobody)
    show(
        "scoreboard",
        timed(lambda: recorder.begin(1.0, b"GET /")) + timed(lambda: recorder.end(1.1, exchange, 100, 1.0)),
    )
    show("exchange, response", timed(lambda: Exchange(application, request, None, _nobody).start()))
    board.close()


def worker(request: bytes, connections: int, seconds: float) -> str:
    with tempfile.TemporaryDirectory() as folder, Rig(hello, Path(folder)) as rig:
        rig.serving()
        clients = [rig.connect() for _ in range(connections)]
        poll = select.epoll()
        sockets = {client.sock.fileno(): client.sock for client in clients}
        for fd in sockets:
            poll.register(fd, select.EPOLLIN)
        drive(clients, poll, request, 0.3)
        before, began = cpu(rig.pid), time.monotonic()
        answered = drive(clients, poll, request, seconds)
        took, after = time.monotonic() - began, cpu(rig.pid)
        own, kernel = ((after[at] - before[at]) / answered * 1e6 for at in (0, 1))
        for client in clients:
            client.sock.close()
        return f"{own:6.1f} own {kernel:6.1f} kernel   {answered / took:8.0f} a second"


def drive(clients: list[Client], poll: select.epoll, request: bytes, seconds: float) -> int:
    """One request under way on each connection, for so long; how many were answered."""
    sockets = {client.sock.fileno(): client.sock for client in clients}
    answered, under_way = 0, len(clients)
    until = time.monotonic() + seconds
    for client in clients:
        client.sock.sendall(request)
    while under_way:
        on = time.monotonic() < until
        for fd, _ in poll.poll():
            sockets[fd].recv(65536)
            answered += 1
            if on:
                sockets[fd].sendall(request)
            else:
                under_way -= 1
    return answered


def cpu(pid: int) -> tuple[float, float]:
    """Seconds of CPU, in its own code and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    show("µs a request", f"CPython {sys.version.split()[0]}")
    core()
    for name, request in (("2 fields", TWO), ("10 fields", TEN)):
        show(f"worker, {name}", worker(request, options.connections, options.seconds))


if __name__ == "__main__":
    main()
