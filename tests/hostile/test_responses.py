"""Claims about what an application may give as its response: what is bad costs this response alone, and is never split.

And about what different requests leave behind: nothing.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.worker_rig import Rig

Start = Callable[..., Callable[[bytes], object]]
Respond = Callable[[Start], Any]

OK = "200 OK"
EVIL = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def _field(name: Any, value: Any) -> Respond:
    return _given(OK, [(name, value)])


def _status(status: Any) -> Respond:
    return _given(status, [])


def _body(result: Any, *fields: tuple[str, str]) -> Respond:
    return _given(OK, list(fields), result)


def _given(status: Any, fields: Any, result: Any = (b"abc",)) -> Respond:
    def respond(start: Start) -> Any:
        start(status, fields)
        return result

    return respond


class Iterates:
    """Gives the blocks; what is an exception is raised, also by close()."""

    def __init__(self, *blocks: Any, closing: BaseException | None = None) -> None:
        self.blocks = blocks
        self.closing = closing

    def __iter__(self) -> Iterator[Any]:
        for block in self.blocks:
            if isinstance(block, BaseException):
                raise block
            yield block

    def close(self) -> None:
        if self.closing is not None:
            raise self.closing


def _twice(start: Start) -> Any:
    start(OK, [])
    start(OK, [])
    return [b"abc"]


def _writes(data: Any, *fields: tuple[str, str]) -> Respond:
    def respond(start: Start) -> Any:
        start(OK, list(fields))(data)
        return [b"abc"]

    return respond


def _anew(start: Start) -> Any:
    start(OK, [])(b"abc")
    start("500 No", [], (ValueError, ValueError("late"), None))
    return [b"evil"]


REFUSED: dict[str, Respond] = {
    "no response": lambda start: None,
    "no start_response": lambda start: [b"abc"],
    "start_response twice": _twice,
    "start_response without fields": lambda start: start(OK),
    "status of bytes": _status(b"200 OK"),
    "status of a number": _status(200),
    "status of nothing": _status(""),
    "no status": _status(None),
    "status without a code": _status("OK"),
    "status without a reason's space": _status("200OK"),
    "status of two digits": _status("20 OK"),
    "status of four digits": _status("2000 OK"),
    "status of other digits": _status("２００ OK"),
    "status 100": _status("100 Continue"),
    "status 101": _status("101 Switching Protocols"),
    "status 999 with a NUL": _status("999 \0"),
    "status that splits": _status(f"200 OK\r\nX-Evil: 1\r\n\r\n{EVIL}"),
    "status with a line feed": _status("200 OK\nX-Evil: 1"),
    "status beyond latin-1": _status("200 \u20ac"),
    "fields that are none": _given(OK, None),
    "fields of one text": _given(OK, "X-A: b"),
    "fields of one number": _given(OK, 7),
    "field of three": _given(OK, [("X-A", "b", "c")]),
    "field of one": _given(OK, [("X-A",)]),
    "field name of bytes": _field(b"X-A", "b"),
    "field name of nothing": _field("", "b"),
    "field name with a space": _field("X A", "b"),
    "field name with a colon": _field("X-A:", "b"),
    "field name that splits": _field("X-A: b\r\nX-Evil", "1"),
    "field name beyond ASCII": _field("X-\u00e9", "b"),
    "field value of a number": _field("X-A", 3),
    "field value of nothing": _field("X-A", None),
    "field value of bytes": _field("X-A", b"b"),
    "field value that splits": _field("X-A", f"b\r\n\r\n{EVIL}"),
    "field value with a return": _field("X-A", "b\rX-Evil: 1"),
    "field value with a line feed": _field("X-A", "b\nX-Evil: 1"),
    "field value that is folded": _field("X-A", "b\r\n X-Evil: 1"),
    "field value with a NUL": _field("X-A", "b\0"),
    "field value beyond latin-1": _field("X-A", "\u20ac"),
    "length with a sign": _field("Content-Length", "+3"),
    "length below nothing": _field("Content-Length", "-3"),
    "length that is no number": _field("Content-Length", "three"),
    "length of other digits": _field("Content-Length", "\u00b3"),
    "length of 30 digits": _field("Content-Length", "9" * 30),
    "two lengths": _given(OK, [("Content-Length", "3"), ("Content-Length", "4")]),
    "body of text": _body("abc"),
    "block of text": _body(["abc"]),
    "block of a number": _body([7]),
    "block of nothing": _body([None]),
    "block of a bytearray": _body([bytearray(b"abc")]),
    "body of bytes": _body(b"abc"),
    "body of a number": _body(7),
    "body that raises at once": _body(Iterates(ValueError("first"))),
    "write of text": _writes("abc"),
}
"""A 500, and the connection serves on."""

CUT: dict[str, Respond] = {
    "shorter than its length": _body([b"abc"], ("Content-Length", "9")),
    "longer than its length": _body([b"abcevil"], ("Content-Length", "3")),
    "written beyond its length": _writes(b"abcevil", ("Content-Length", "3")),
    "nothing of its length": _body([], ("Content-Length", "3")),
    "body that raises midway": _body(Iterates(b"abc", ValueError("midway"))),
    "body that exits midway": _body(Iterates(b"abc", SystemExit(3))),
    "block of text midway": _body(Iterates(b"abc", "evil")),
    "begun anew midway": _anew,
}
"""Its client sees that it is not whole, or is whole by its length; the connection ends."""

WHOLE: dict[str, Respond] = {
    "close() that raises": _body(Iterates(b"abc", closing=ValueError("close"))),
    "close() that exits": _body(Iterates(b"abc", closing=SystemExit(3))),
    "fields of the connection": _given(OK, [("Connection", "X-Evil"), ("Transfer-Encoding", "gzip, chunked")]),
    "empty blocks": _body([b"", b"abc", b"", b""]),
}
"""Answered as if it were in order: what is wrong with it is none of the client's business."""

BAD = REFUSED | CUT | WHOLE


def app(environ: dict[str, Any], start: Start) -> Any:
    kind = environ["QUERY_STRING"]
    if kind:
        return BAD[list(BAD)[int(kind)]](start)
    start(OK, [("Content-Length", "4")])
    return [b"good"]


@pytest.fixture(scope="module", params=[1, 4], ids=["one thread", "four threads"])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(app, tmp_path_factory.mktemp("rig"), threads=request.param) as rig:
        yield rig.serving()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_response_costs_itself_alone(rig: Rig, kind: str) -> None:
    with rig.connect() as client:
        client.send(b"GET /?%d HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n" % list(BAD).index(kind))
        raw = b""
        with contextlib.suppress(ConnectionResetError):
            client.sock.settimeout(10)
            while not raw.endswith(b"good") and (data := client.sock.recv(65536)):
                raw += data
    assert b"evil" not in raw.lower()
    if kind in CUT:
        assert raw.startswith(b"HTTP/1.1 200 ")
        assert raw.count(b"HTTP/1.1") == 1
        assert b"good" not in raw
        assert not raw.endswith(b"0\r\n\r\n")  # chunks that look whole
    else:
        status = b"500 Internal Server Error" if kind in REFUSED else b"200 OK"
        assert re.match(rb"HTTP/1\.1 %b\r\n" % status, raw), raw
        assert raw.endswith(b"\r\n\r\ngood")
        assert raw.count(b"HTTP/1.1") == 2
    assert rig.get().body == b"good"
    assert "a bug in srvd" not in rig.log()


DIFFERENT = 4_000
GROWTH = 1 << 19
"""Bytes by which a worker may have grown; 12,000 requests that leave 50 bytes each come to more."""


def _echoes(environ: dict[str, Any], start: Start) -> list[bytes]:
    """As different as the request: status, fields and length."""
    number = environ["QUERY_STRING"]
    start(f"2{int(number) % 90 + 10} {number}", [(f"X-{number}", number), ("Set-Cookie", f"{number}={number}")])
    return [number.encode() * 3]


def _requests(begin: int) -> bytes:
    text = "GET /{0}?{0} HTTP/1.1\r\nHost: {0}.test\r\nX-{0}: {0}\r\nCookie: id={0}\r\nAccept: text/{0}\r\n\r\n"
    return "".join(text.format(number) for number in range(begin, begin + 100)).encode()


def test_requests_that_are_all_different_leave_a_worker_no_larger(tmp_path: Path) -> None:
    with Rig(_echoes, tmp_path, access_log=str(tmp_path / "access")) as rig, rig.serving().connect() as client:
        worker = psutil.Process(rig.pid)
        sizes = []
        for begin in range(0, 4 * DIFFERENT, 100):
            if begin % DIFFERENT == 0:
                sizes.append(worker.memory_info().rss)
            client.send(_requests(begin))
            for number in range(begin, begin + 100):
                assert client.answer().headers[f"x-{number}"] == str(number)
        sizes.append(worker.memory_info().rss)
    # What is kept of each request shows in each part of them; an arena that the allocator adds shows once.
    grown = 3 * min(after - before for before, after in pairwise(sizes[1:]))
    print(f"{sizes[1] / 2**20:.1f} MiB, {grown / 2**10:+.0f} KiB in {3 * DIFFERENT} requests")  # noqa: T201 - a figure to read
    assert grown < GROWTH
