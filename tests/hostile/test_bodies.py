"""Claims about `wsgi.input`: read in any way it gives its own body, and nothing of it when its request is over."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.worker_rig import Client, Rig

Start = Callable[..., object]
Read = Callable[[Any], bytes]


def _until_end(step: Callable[[Any], bytes]) -> Read:
    return lambda body: b"".join(iter(lambda: step(body), b""))


def _mixed(body: Any) -> bytes:
    """A bit of each."""
    steps = (lambda: body.read(7), body.readline, lambda: body.readline(3), lambda: next(iter(body), b""))
    pieces: list[bytes] = []
    while piece := steps[len(pieces) % len(steps)]():
        pieces.append(piece)
    return b"".join([*pieces, body.read()])


READS: dict[str, Read] = {
    "read()": lambda body: body.read(),
    "read(-1)": lambda body: body.read(-1),
    "read(n)": _until_end(lambda body: body.read(1000)),
    "read(1)": _until_end(lambda body: body.read(1)),
    "read(more)": lambda body: body.read(1 << 30) + body.read(5) + body.read(),
    "readline()": _until_end(lambda body: body.readline()),
    "readline(n)": _until_end(lambda body: body.readline(10)),
    "readlines()": lambda body: b"".join(body.readlines()),
    "readlines(n)": _until_end(lambda body: b"".join(body.readlines(100))),
    "iterated": b"".join,
    "mixed": _mixed,
    "buffered": lambda body: io.BytesIO(body.read()).getvalue(),
}
"""Each gives the whole body."""

PARTS: dict[str, Read] = {
    "nothing": lambda body: b"",
    "read(0)": lambda body: body.read(0),
    "a part": lambda body: body.read(100),
    "a line": lambda body: body.readline(),
}
"""The rest must not become a request."""

KEPT: list[Any] = []


def app(environ: dict[str, Any], start: Start) -> list[bytes]:
    body, name = environ["wsgi.input"], environ["QUERY_STRING"].replace("%20", " ")
    if name == "keep":
        KEPT.append(body)
        text = body.read(3)
    elif name == "of others":
        text = b"".join(_late(other, read) for other in KEPT for read in READS.values())
        body.read()  # a connection is not kept when the rest of a body is not here yet
    elif name in PARTS:
        PARTS[name](body)
        text = b"a part"
    else:
        text = hashlib.sha256(READS[name](body)).hexdigest().encode() if name else b"next"
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


def _late(body: Any, read: Read) -> bytes:
    try:
        return read(body)
    except ValueError:  # it is closed
        return b""


CASES = [(streamed, threads) for streamed in (False, True) for threads in (1, 4)]


@pytest.fixture(scope="module", params=CASES, ids=[f"streamed {case[0]}, threads {case[1]}" for case in CASES])
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    streamed, threads = request.param
    with Rig(app, tmp_path_factory.mktemp("rig"), stream_bodies=streamed, threads=threads) as rig:
        yield rig.serving()


EVIL = b"GET /?nothing HTTP/1.1\r\nHost: evil\r\n\r\n"
BODIES = {
    "short": b"abc",
    "lines": EVIL * 50 + b"\n\n\n" + b"no end",
    "long": random.Random(39).randbytes(30_000) + EVIL,
}


def _post(client: Client, path: str, body: bytes, *, chunked: bool, dice: random.Random) -> None:
    """In pieces of any size."""
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    client.send(b"POST /?%b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % (path.replace(" ", "%20").encode(), length))
    while body:
        piece, body = body[: (size := dice.choice((1, 7, 4000, 20_000)))], body[size:]
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        client.send(b"0\r\n\r\n")


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
@pytest.mark.parametrize("read", READS)
def test_a_body_is_whole_in_whatever_way_it_is_read(rig: Rig, read: str, chunked: bool) -> None:
    dice = random.Random(39)
    with rig.connect() as client:
        for body in BODIES.values():
            _post(client, read, body, chunked=chunked, dice=dice)
            assert client.answer().body.decode() == hashlib.sha256(body).hexdigest()
            assert client.get("/").body == b"next"


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
@pytest.mark.parametrize("part", PARTS)
def test_the_rest_of_a_body_is_never_a_request(rig: Rig, part: str, chunked: bool) -> None:
    for body in BODIES.values():
        with rig.connect() as client:
            _post(client, part, body, chunked=chunked, dice=random.Random(40))
            client.send(b"GET /? HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().body == b"a part"
            try:
                assert client.answer().body == b"next"
            except (EOFError, ConnectionError):  # more was left than is thrown away
                assert client.buffer == b""


def test_the_input_of_a_request_that_is_over_gives_nothing_of_another(rig: Rig) -> None:
    """It is asked while other requests send theirs, on its own connection and on others."""
    secret = b"secret" * 2000
    with rig.connect() as client, ThreadPoolExecutor(2) as pool:
        for chunked in (False, True):
            _post(client, "keep", b"own" * 100, chunked=chunked, dice=random.Random(57))
            assert client.answer().body == b"own"
        others = [pool.submit(_sends, rig, secret) for _ in range(2)]
        for _ in range(10):
            _post(client, "of others", secret, chunked=True, dice=random.Random(58))
            assert b"secret" not in client.answer().body
        assert [one.result(30) for one in others] == [True, True]


def _sends(rig: Rig, body: bytes) -> bool:
    """Whether each of its bodies arrived."""
    expected = hashlib.sha256(body).hexdigest()
    with rig.connect() as client:
        for number in range(20):
            _post(client, "read()", body, chunked=bool(number % 2), dice=random.Random(number))
            if client.answer().body.decode() != expected:
                return False
    return True
