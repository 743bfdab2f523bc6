"""How each server of the scoreboard is started, and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.scoreboard.wire import Server

BIN = Path(sys.executable).parent
APP = "tests.scoreboard.app:app"
ROOT = Path(__file__).parents[2]
STARTS = 60.0
"""Seconds until a server listens, and until it ends."""


def _srvd(program: str, port: int, folder: Path) -> list[str]:
    config = folder / "srvd.toml"
    config.write_text(
        f'[daemon]\nlog_level = "error"\n[control]\nsocket = "{folder}/srvd.sock"\n'
        f'[listeners.web]\nbind = ["127.0.0.1:{port}"]\n[pools.web]\napp = "{APP}"\nworkers = 1\n'
    )
    return [program, "start", "-c", str(config)]


def command(name: str, program: str, port: int, folder: Path) -> list[str]:
    """The words that start a server with one worker on the port."""
    where = f"127.0.0.1:{port}"
    if name == "srvd":
        return _srvd(program, port, folder)
    return {
        "uvicorn": [program, APP, "--port", str(port), "--http", "httptools", "--ws", "websockets-sansio"],
        "hypercorn": [program, APP, "--bind", where],
        "granian": [program, APP, "--interface", "asgi", "--port", str(port)],
        "gunicorn": [program, APP, "--bind", where, "--worker-class", "asgi"],
    }[name]


def program(name: str, peers: Path) -> str | None:
    return shutil.which(str((BIN if name == "srvd" else peers) / name))


@contextlib.contextmanager
def running(name: str, program: str, folder: Path) -> Iterator[Server]:
    """The server, for as long as the block lasts. Raises RuntimeError if it does not listen."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = command(name, program, port, folder)
    with (folder / "log").open("wb") as log:
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, env=environ, start_new_session=True)
    try:
        _listening(process, port, folder)
        yield Server("127.0.0.1", port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STARTS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _listening(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    end = time.monotonic() + STARTS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError((folder / "log").read_text())
