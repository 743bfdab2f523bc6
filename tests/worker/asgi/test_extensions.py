"""Extensions that an application of ASGI finds in its scope: files as bodies, and early hints."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.worker_rig import Rig as AnyRig
from tests.worker.asgi.test_http import given, start

Scope = dict[str, Any]
Rig = partial(AnyRig, lifespan="off")
SIZE = 9_000_000
HINT = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}


def path_send(path: Path | str) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(path)}


def test_a_file_is_the_body(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(SIZE))

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(start())
        await send(path_send(file))

    with Rig(app, tmp_path) as rig:
        rig.serving()
        before = len(os.listdir(f"/proc/{rig.pid}/fd"))
        with rig.connect() as client:
            for _ in range(3):
                answer = client.get()
                assert answer.headers["content-length"] == str(SIZE)
                assert answer.body == file.read_bytes()
            head = client.get(method="HEAD")
            assert head.headers["content-length"] == str(SIZE)
            assert client.get().status == 200
        rig.connections(0)
        assert len(os.listdir(f"/proc/{rig.pid}/fd")) == before


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([start(), path_send("/absent")], "FileNotFoundError"),
        ([start(), path_send("relative")], "'relative' is no absolute path"),
        ([start(), path_send("/")], "'/' is no regular file"),
        ([start(200, (b"content-length", b"5")), path_send(__file__)], "not 5"),
        ([path_send(__file__)], "is no message of a response"),
        ([{"type": "http.response.early_hint", "links": ["text"]}], "links are no list of bytes"),
        ([{"type": "http.response.early_hint", "links": [b"a\r\nb: c"]}], "a header has CR, LF or NUL"),
        ([start(), HINT], "early hints come before the response"),
    ],
)
def test_a_wrong_one_puts_nothing_on_the_wire(tmp_path: Path, messages: list[Any], why: str) -> None:
    sent, log = given(tmp_path, *messages)
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert why in log


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_hints_come_before_the_response(tmp_path: Path, version: str) -> None:
    sent, log = given(
        tmp_path, HINT, start(), {"type": "http.response.body", "body": b"hello"}, version=version
    )  # fmt: skip
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\r\n"
    assert sent.startswith(hints + b"HTTP/1.1 200 OK\r\n" if version == "1.1" else b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\n\r\nhello")
    assert log == ""
