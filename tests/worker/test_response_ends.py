"""Responses that are abandoned, late, cut off, or over: what their application is told, what their client sees, and
what the others notice.
"""

from __future__ import annotations

import bz2
import contextvars
import gzip
import io
import os
import signal
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from srvd.worker.net.front import Front
from srvd.worker.net.tls import TlsListener
from tests.support.certificates import Authority
from tests.support.waiting import stays, wait_for
from tests.support.worker_rig import Client, Rig

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
TEXT = [("Content-Type", "text/plain")]
USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
THREADS = pytest.mark.parametrize("threads", [1, 4])


def reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()


# Thread and context


@THREADS
def test_a_stream_and_a_request_beside_it_do_not_see_each_other(tmp_path: Path, threads: int) -> None:
    local = threading.local()

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        me = environ["QUERY_STRING"]
        seen = f"{USER.get()} {getattr(local, 'inside', None)}"
        start("200 OK", TEXT)
        USER.set(me)
        local.inside, thread = me, threading.get_ident()
        yield b"x" * 8_000_000
        same = threading.get_ident() == thread
        yield f"\n{seen} {me} {USER.get()} {local.inside} {same}".encode()
        local.inside = None

    with Rig(app, tmp_path, threads=threads) as rig, rig.serving().connect() as alice:
        alice.send(b"GET /?alice HTTP/1.0\r\n\r\n").read_until(b"\r\n\r\n")
        for _ in range(3):
            bob = rig.get("/?bob", "Connection: close")
            assert bob.body.rpartition(b"\n")[2] == b"nobody None bob bob bob True"
        assert alice.rest().rpartition(b"\n")[2] == b"nobody None alice alice alice True"


@THREADS
def test_a_request_begins_with_the_context_of_its_worker_and_its_hooks_are_in_it(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def before(environ: Environ) -> None:
        told.append(f"{USER.get()} {threading.get_ident()}")
        USER.set("of before_request")

    def after(environ: Environ, status: int, sent: int, seconds: float) -> None:
        told.append(f"{USER.get()} {threading.get_ident()}")

    class Body(list[bytes]):
        def close(self) -> None:
            told.append(f"{USER.get()} {threading.get_ident()}")
            USER.set("of close()")

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", TEXT)
        if environ["PATH_INFO"] == "/told":
            return ["\n".join(told).encode()]
        told.append(f"{USER.get()} {threading.get_ident()}")
        USER.set("of the application")
        return Body([b"x", b"y"])

    def begins(worker: str) -> None:
        USER.set("of the worker")

    module = ModuleType("hooks_of_contexts")
    module.on_worker_start, module.before_request, module.after_request = begins, before, after  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with Rig(app, tmp_path, threads=threads, hooks=module.__name__) as rig:
        with rig.serving().connect() as client:  # one connection: its second request waits for the end of the first
            client.get()
            *first, _ = client.get("/told").body.decode().split("\n")
        values, threads_of = zip(*(line.rsplit(" ", 1) for line in first[:4]), strict=True)
        assert values == ("of the worker", "of before_request", "of the application", "of close()")
        assert len(set(threads_of)) == 1


# Readers that leave


@pytest.mark.parametrize("how", ["leaves", "takes nothing"])
def test_a_close_that_takes_its_time_holds_up_nobody_else(tmp_path: Path, how: str) -> None:
    go_on, closing = tmp_path / "go on", tmp_path / "closing"

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", TEXT)
        if environ["PATH_INFO"] == "/":
            yield b"ok"
            return
        try:
            while True:
                yield b"x" * 300_000
        finally:
            closing.touch()
            wait_for(go_on.exists)

    bounds: dict[str, Any] = {"send_timeout": 0.5, "max_buffered_response": 4 << 20}
    with Rig(app, tmp_path, threads=4, **bounds) as rig, rig.serving().connect() as client:
        client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").read_until(b"\r\n\r\n")
        if how == "leaves":
            reset(client)
        wait_for(closing.exists)
        for _ in range(20):
            assert rig.get().body == b"ok"
        wait_for(lambda: (rig.facts().busy, rig.facts().line) == (1, "GET /stream"))
        go_on.touch()
        wait_for(lambda: rig.facts().busy == 0)


@THREADS
def test_a_reader_that_has_reset_is_noticed_by_an_application_that_gives_nothing(tmp_path: Path, threads: int) -> None:
    closed = tmp_path / "closed"

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", TEXT)
        try:
            yield b"first"
            for _ in range(2000):
                time.sleep(0.005)
                yield b""
        finally:
            closed.touch()

    with Rig(app, tmp_path, threads=threads) as rig, rig.serving().connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").read_until(b"first")
        client.sock.shutdown(socket.SHUT_WR)  # which means nothing
        assert stays(lambda: not closed.exists(), 0.2)
        reset(client)
        wait_for(closed.exists, within=5)


@THREADS
def test_what_is_given_for_a_response_that_has_ended_goes_nowhere(tmp_path: Path, threads: int) -> None:
    kept: list[Callable[[bytes], object]] = []
    errors: list[str] = []

    def late() -> None:
        try:
            kept[0](b"stolen")
        except RuntimeError as exc:
            errors.append(str(exc))

    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        write = start("200 OK", TEXT)
        kept.append(write)
        yield b"one "
        if len(kept) > 1:  # the second response has begun; the first one's write() is called beside it
            thread = threading.Thread(target=late)
            thread.start()
            thread.join()
            late()
        yield b"two " + str(errors).encode()

    with Rig(app, tmp_path, threads=threads) as rig, rig.serving().connect() as client:
        assert client.get().body == b"one two []"
        assert client.get().body.count(b"the response has ended; nothing more can be given for it") == 2


# Workers that are killed


def streaming(environ: Environ, start: Start) -> Iterator[bytes]:
    start("200 OK", TEXT)
    yield b"a" * 10
    if environ["PATH_INFO"] == "/hang":
        time.sleep(60)
    yield b"b" * 10


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@THREADS
def test_a_response_that_ends_with_its_connection_is_reset_with_its_worker(
    tmp_path: Path, threads: int, authority: Authority, *, secure: bool
) -> None:
    front = tls_front(authority) if secure else None
    with Rig(streaming, tmp_path, threads=threads, front=front) as rig:
        rig.serving()
        with connect(rig, authority, secure=secure) as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert client.rest().endswith(b"\r\n\r\naaaaaaaaaabbbbbbbbbb")
        with connect(rig, authority, secure=secure) as client:
            client.send(b"GET /hang HTTP/1.0\r\n\r\n").read_until(b"\r\n\r\naaaaaaaaaa")
            os.kill(rig.pid, signal.SIGKILL)
            with pytest.raises((ConnectionResetError, ssl.SSLError)):
                client.rest()


# Files


class Delegating:
    """As storages have them: attributes are those of what is inside, read() is not."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._inner.read(size)
        return data.upper()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _files(folder: Path) -> dict[str, Callable[[], Any]]:
    data = folder / "data"

    def named() -> Any:
        file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the server closes it
        file.write(b"text " * 4000)
        file.seek(5)
        return file

    return {
        "plain": lambda: data.open("rb"),
        "raw": lambda: io.FileIO(data),
        "random": lambda: data.open("r+b"),
        "named": named,
        "gzip": lambda: gzip.open(folder / "data.gz"),
        "bz2": lambda: bz2.open(folder / "data.bz2"),
        "delegating": lambda: Delegating(data.open("rb")),
        "text": data.open,
        "proc": lambda: Path("/proc/self/status").open("rb"),
        "sys": lambda: Path("/sys/kernel/mm/transparent_hugepage/enabled").open("rb"),
        "empty": lambda: (folder / "empty").open("rb"),
    }


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_file_is_what_its_read_gives(tmp_path: Path, authority: Authority, *, secure: bool) -> None:
    text = b"text " * 4000
    (tmp_path / "data").write_bytes(text)
    (tmp_path / "empty").touch()
    (tmp_path / "data.gz").write_bytes(gzip.compress(text))
    (tmp_path / "data.bz2").write_bytes(bz2.compress(text))
    kinds = _files(tmp_path)

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", TEXT)
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](kinds[environ["PATH_INFO"][1:]](), 4096)
        return wrapped

    front = tls_front(authority) if secure else None
    with Rig(app, tmp_path, front=front) as rig:
        rig.serving()
        with connect(rig, authority, secure=secure) as client:
            for kind in ("plain", "raw", "random"):
                answer = client.get(f"/{kind}")
                assert (answer.body, answer.headers["content-length"]) == (text, str(len(text))), kind
            assert client.get("/named").body == text[5:]
            for kind in ("gzip", "bz2"):
                assert client.get(f"/{kind}").body == text, kind
            assert client.get("/delegating").body == text.upper()
            assert client.get("/empty").body == b""
            assert f"Pid:\t{rig.pid}\n".encode() in client.get("/proc").body
            if Path("/sys/kernel/mm/transparent_hugepage/enabled").exists():
                assert b"never" in client.get("/sys").body
            assert client.get("/text").status == 500  # its blocks are no bytes, whether it has a descriptor or not


@THREADS
def test_a_file_is_closed_before_its_slow_reader_has_it(tmp_path: Path, threads: int) -> None:
    """And its reader gets all of it."""
    data = os.urandom(30_000_000)
    (tmp_path / "data").write_bytes(data)
    closed = tmp_path / "closed"

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", TEXT)
        wrapped: Any = environ["wsgi.file_wrapper"]((tmp_path / "data").open("rb"))
        close = wrapped.close

        def told() -> None:
            close()
            closed.touch()

        wrapped.close = told
        result: Iterable[bytes] = wrapped
        return result

    with Rig(app, tmp_path, threads=threads) as rig, rig.serving().connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(closed.exists)
        wait_for(lambda: rig.facts().busy == 0)
        assert client.answer().body == data


# A socket, plain or not


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def tls_front(authority: Authority) -> Front:
    return Front(None, None, "x-forwarded", TlsListener(authority.material()))


def connect(rig: Rig, authority: Authority, *, secure: bool) -> Client:
    client = rig.connect()
    if secure:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client.sock = context.wrap_socket(client.sock, suppress_ragged_eofs=False)
    return client
