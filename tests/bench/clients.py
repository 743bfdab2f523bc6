"""What asks the servers of `tests.bench.peers`: wrk where it can, own clients for Unix sockets and for latencies.

wrk sends the next request when the last one is answered, so a server that stalls is asked less while it does. Latencies
are therefore taken at a fixed rate: each request has a time at which it is due, and its latency counts from there.
"""

from __future__ import annotations

import re
import selectors
import socket
import ssl
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
END = b"Hello world\n"  # of the answer to it


class Result(NamedTuple):
    rate: float  # requests a second
    answered: int  # requests that were answered with 2xx


def wrk(url: str, script: str, folder: Path, seconds: int, *, connections: int, core: int) -> Result:
    """Keep-alive connections, each with one request at a time. Nothing counts if one was not answered with 2xx."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
    if script:
        path = folder / "wrk.lua"
        path.write_text(script)
        command += ["-s", str(path)]
    text = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 60).stdout
    found = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if found is None or rate is None or "Non-2xx" in text:
        return Result(0.0, 0)
    return Result(float(rate[1]), int(found[1]))


def over_unix(path: Path, seconds: float, connections: int = 32) -> Result:
    """wrk knows no Unix sockets: all connections are asked, then all are read."""
    clients = [socket.socket(socket.AF_UNIX) for _ in range(connections)]
    count, began = 0, time.monotonic()
    try:
        for client in clients:
            client.settimeout(10)
            client.connect(str(path))
        while time.monotonic() - began < seconds:
            for client in clients:
                client.sendall(REQUEST)
            for client in clients:
                answer = client.recv(65536)
                while answer and not answer.endswith(END):
                    answer += client.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200"):
                    return Result(0.0, 0)
            count += connections
    except OSError:
        return Result(0.0, 0)  # a server that ends its connections is not measured here
    finally:
        for client in clients:
            client.close()
    return Result(count / (time.monotonic() - began), count)


def latencies(port: int, rate: float, seconds: float, connections: int = 64) -> list[float]:
    """Of each request that was due, ms from then to the end of its answer, sorted; at `rate` requests a second."""
    selector = selectors.DefaultSelector()
    idle: deque[socket.socket] = deque()
    due: deque[float] = deque()
    taken: list[float] = []
    clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(connections)]
    try:
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(client, selectors.EVENT_READ)
            idle.append(client)
        asked: dict[socket.socket, float] = {}
        began, sent, total = time.monotonic(), 0, int(rate * seconds)
        while len(taken) < total:
            now = time.monotonic()
            if now - began > seconds + 30:
                raise TimeoutError(f"{total - len(taken)} of {total} requests were not answered in time")
            while sent < total and began + sent / rate <= now:
                due.append(began + sent / rate)
                sent += 1
            while due and idle:
                client = idle.popleft()
                asked[client] = due.popleft()
                client.sendall(REQUEST)
            wait = max(began + sent / rate - time.monotonic(), 0.0) if sent < total else 1.0
            for key, _ in selector.select(min(wait, 0.001) if due else wait):
                client = key.fileobj  # type: ignore[assignment]  # what was registered
                data = client.recv(65536)
                if not data:
                    raise ConnectionError("the server ended a connection")
                if not data.endswith(END):
                    continue
                taken.append(1e3 * (time.monotonic() - asked.pop(client)))
                idle.append(client)
    finally:
        selector.close()
        for client in clients:
            client.close()
    return sorted(taken)


def comes_up(server: subprocess.Popen[bytes], port: int, unix: Path | None, *, tls: bool) -> bool:
    """Waits until it answers a request, 15 s at most; false if it ends or does not."""
    deadline = time.monotonic() + 15
    context = ssl._create_unverified_context() if tls else None
    while time.monotonic() < deadline and server.poll() is None:
        client = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        client.settimeout(2)
        try:
            client.connect(str(unix) if unix else ("127.0.0.1", port))
            stream = context.wrap_socket(client) if context else client
            with stream:
                stream.sendall(REQUEST)
                return bool(stream.recv(100))
        except OSError:
            client.close()
            time.sleep(0.02)
    return False
