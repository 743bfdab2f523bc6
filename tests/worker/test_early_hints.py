"""Claims about `wsgi.early_hints`: responses 103 before the response (RFC 8297)."""

from __future__ import annotations

import _socket
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from srvd.worker.net.file_span import Span
from srvd.worker.net.send_queue import SendQueue
from tests.support.waiting import wait_for
from tests.support.worker_rig import Rig

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]

LINK = ("Link", "</style.css>; rel=preload; as=style")
GIVEN: dict[str, list[list[tuple[str, str]]]] = {
    "/one": [[LINK]],
    "/two": [[LINK], [("Link", "</code.js>; rel=preload; as=script")]],
    "/split": [[("Link", "a\r\nSet-Cookie: b")]],
    "/length": [[("Content-Length", "5")]],
    "/hop": [[("Connection", "close"), LINK]],
}


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    hint = environ["wsgi.early_hints"]
    path = environ["PATH_INFO"]
    for headers in GIVEN.get(path, []):
        hint(headers)
    write = start("200 OK", [("Content-Type", "text/plain")])
    if path == "/late":
        write(b"begun")
        hint([LINK])
    return [b"ok"]


@pytest.mark.parametrize("threads", [1, 2])
def test_hints_go_out_before_the_response(tmp_path: Path, threads: int) -> None:
    log = tmp_path / "access"
    with Rig(app, tmp_path, threads=threads, access_log=str(log), access_log_format="common") as rig:
        with rig.serving().connect() as client:
            hint = client.get("/two")
            assert (hint.status, hint.headers) == (103, {"link": LINK[1]})
            assert client.answer().status == 103
            assert client.answer().body == b"ok"
            assert client.get("/hop").headers == {"link": LINK[1]}
            assert client.answer().body == b"ok"
            assert client.get("/one").status == 103
            assert client.answer().body == b"ok"
            assert client.get("/").body == b"ok"
        rig.drain()
        rig.wait()
    assert [line.split()[-2:] for line in log.read_text().splitlines()] == [["200", "2"]] * 4


def test_a_client_of_http_1_0_gets_none(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        assert rig.serving().get("/one", version="1.0").body == b"ok"


@pytest.mark.parametrize("path", ["/split", "/length"])
def test_hints_that_must_not_go_on_the_wire_are_the_applications_failure(tmp_path: Path, path: str) -> None:
    with Rig(app, tmp_path) as rig:
        assert rig.serving().get(path).status == 500
        assert "ResponseInvalid" in rig.log()


def test_hints_after_the_response_has_begun_are_refused(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.rest().endswith(b"\r\n\r\n5\r\nbegun\r\n")
        assert "early hints come before the response" in rig.log()


FILE = 3 << 20


def test_a_file_waits_for_the_thread_that_sends_the_hints_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That thread is held in the middle of a send() while the file comes: two that send would send the same twice."""
    content = os.urandom(FILE)
    hints = [f"{number:02}" * 4000 for number in range(50)]  # more than the kernel takes, and all may be kept
    (tmp_path / "file").write_bytes(content)
    filed, sending, add_file = threading.Event(), threading.Event(), SendQueue.add_file

    def send(sock: socket.socket, data: bytes) -> int:
        if filed.is_set() and threading.current_thread().name == "srvd: sender":
            sending.set()
            time.sleep(0.2)
        return _socket.socket.send(sock, data)

    def after_hints(outbox: SendQueue, span: Span) -> None:
        filed.set()
        (tmp_path / "filed").touch()
        sending.wait(1)
        add_file(outbox, span)

    def hinted(environ: Environ, start: Start) -> Iterable[bytes]:
        for hint in hints:
            environ["wsgi.early_hints"]([("Link", hint)])
        start("200 OK", [("Content-Length", str(FILE))])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](open(tmp_path / "file", "rb"))  # noqa: SIM115 - closed by it
        return wrapped

    monkeypatch.setattr(socket.socket, "send", send)  # the worker is forked with both
    monkeypatch.setattr(SendQueue, "add_file", after_hints)
    with Rig(hinted, tmp_path) as rig:
        rig.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)  # inherited by what is accepted
        rig.serving()
        with rig.connect() as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for((tmp_path / "filed").exists)
            for hint in hints:
                assert client.answer().headers == {"link": hint}
            assert client.answer().body == content
