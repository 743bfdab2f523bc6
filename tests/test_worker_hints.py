"""Claims about `wsgi.early_hints`: responses 103 before the response (RFC 8297)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.worker_rig import Rig

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


def test_a_file_after_hints_that_the_client_has_not_read_is_whole(tmp_path: Path) -> None:
    """Something else sends the hints meanwhile: it must not send of the file as well."""
    content = os.urandom(FILE)
    (tmp_path / "file").write_bytes(content)

    def many(environ: Environ, start: Start) -> Iterable[bytes]:
        for _ in range(400):
            environ["wsgi.early_hints"]([("Link", "x" * 8000)])
        start("200 OK", [("Content-Length", str(FILE))])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](open(tmp_path / "file", "rb"))  # noqa: SIM115 - closed by it
        return wrapped

    with Rig(many, tmp_path) as rig:
        rig.serving()
        for _ in range(20):
            with rig.connect() as client:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                client.read_until(b"HTTP/1.1 200 OK\r\n")
                client.read_until(b"\r\n\r\n")
                assert client.read(FILE) == content
