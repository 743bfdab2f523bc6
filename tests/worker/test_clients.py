"""What real clients and applications say beside the usual, and messages that tell no more than they should."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_for
from tests.support.worker_rig import Client, Rig

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]

PLAIN = [("Content-Type", "text/plain")]


def method(environ: Environ, start: Start) -> list[bytes]:
    start("200 OK", list(PLAIN))
    body = environ["wsgi.input"].read()
    return [f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + body]


@pytest.mark.parametrize("threads", [1, 2])
def test_any_token_is_a_method_on_a_kept_connection(tmp_path: Path, threads: int) -> None:
    with Rig(method, tmp_path, threads=threads) as rig, rig.serving().connect() as client:
        for name in ("GET", "BAN", "REFRESH", "VERSION-CONTROL", "get", "PRI", "MKREDIRECTREF", "BAN", "GET"):
            head = f"{name} /a HTTP/1.1\r\nHost: a\r\n"
            assert client.send(f"{head}\r\n".encode()).answer().body == f"{name} /a ".encode()
            counted = client.send(f"{head}Content-Length: 3\r\n\r\nabc".encode()).answer()
            assert counted.body == f"{name} /a abc".encode()
            chunked = client.send(f"{head}Transfer-Encoding:\t chunked \t\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode())
            assert chunked.answer().body == f"{name} /a abc".encode()
        assert client.get("a:443", method="CONNECT").status == 501
        assert client.rest() == b""


def test_a_method_that_only_looks_like_head_has_a_body(tmp_path: Path) -> None:
    """RFC 9110 section 9.1: methods are case-sensitive."""
    with Rig(method, tmp_path) as rig, rig.serving().connect() as client:
        assert client.send(b"head / HTTP/1.1\r\nHost: a\r\n\r\n").answer().body == b"head / "
        assert client.get("/", method="HEAD").body == b""
        assert client.get("/").body == b"GET / "


HOPS = ("Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate", "TE", "Trailer")


def relaying(environ: Environ, start: Start) -> Iterable[bytes]:
    """A view that passes on all that another server has said."""
    start("200 OK", [*PLAIN, *((name, "x") for name in HOPS), ("Content-Length", "2"), ("Content-Length", "2")])
    return [b"ok"]


@pytest.mark.parametrize("threads", [1, 4])
def test_what_speaks_of_the_connection_is_dropped_with_one_warning(tmp_path: Path, threads: int) -> None:
    with Rig(relaying, tmp_path, threads=threads) as rig, rig.serving().connect() as client:
        for _ in range(3):
            answer = client.get("/relay?token=secret")
            assert (answer.status, answer.body) == (200, b"ok")
            assert set(answer.headers) == {"server", "date", "content-type", "content-length"}
        for name in HOPS:
            assert rig.log().count(f"GET /relay: the application's field {name.lower()} was dropped") == 1


class Failing:
    """A body whose end fails."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"hello", b"world"])

    def close(self) -> None:
        raise OSError("no end")


def failing(environ: Environ, start: Start) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("broken")
    length = {"/short": [("Content-Length", "20")], "/long": [("Content-Length", "5")]}.get(path, [])
    start("200 OK", [*PLAIN, *length])
    return Failing() if path == "/close" else iter([b"hello", b"world"])


@pytest.mark.parametrize("path", ["/raise", "/short", "/long", "/close"])
def test_messages_name_a_request_without_its_query(tmp_path: Path, path: str) -> None:
    """They end in places where more than the server's owner can read."""
    asked = f"GET {path}?token=secret HTTP/1.1\r\nHost: a\r\nCookie: id=secret\r\nAuthorization: Basic secret\r\n\r\n"
    with Rig(failing, tmp_path) as rig, rig.serving().connect() as client:
        client.send(asked.encode()).read_until(b"\r\n")
        absolute = asked.replace(path, f"http://a{path}", 1)
        with rig.connect() as other:
            other.send(absolute.encode()).read_until(b"\r\n")
            wait_for(lambda: f"GET http://a{path}: " in rig.log())
        wait_for(lambda: f"GET {path}: " in rig.log())
        assert "secret" not in rig.log()


def flask_app() -> Any:
    from flask import Flask, request

    app = Flask("clients")

    @app.route("/", methods=["GET", "OPTIONS"], provide_automatic_options=False)
    def root() -> str:
        return f"{request.url} {request.environ.get('HTTP_HOST')}"

    return app


def django_app() -> Any:
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.urls import path

    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF=(path("", lambda request: HttpResponse(request.build_absolute_uri())),),
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        SECRET_KEY="-",
    )
    django.setup()
    return WSGIHandler()


@pytest.mark.parametrize("load", [flask_app, django_app])
@pytest.mark.parametrize("unix", [True, False])
def test_a_client_that_knows_no_name_is_served_by_frameworks(
    tmp_path: Path, load: Callable[[], Any], unix: bool
) -> None:
    """Health checks of balancers, and monitors, say `Host:` with nothing behind it."""
    pytest.importorskip(load.__name__.partition("_")[0])
    with Rig(None, tmp_path, load=load, unix=unix) as rig:
        rig.serving()
        for head in (
            b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
        ):
            with Client(rig.address) as client:
                answer = client.send(head).answer()
            name = b"http://localhost" if unix else b"http://127.0.0.1:%d" % rig.address[1]
            assert answer.status == 200
            assert answer.body.startswith(name)


@pytest.mark.parametrize("load", [flask_app, django_app])
def test_options_for_the_whole_server_is_answered_by_the_root(tmp_path: Path, load: Callable[[], Any]) -> None:
    """RFC 3875 section 4.1.5: PATH_INFO is empty, or begins with a slash; "*" is none, and RAW_URI has it."""
    pytest.importorskip(load.__name__.partition("_")[0])
    with Rig(None, tmp_path, load=load) as rig, rig.serving().connect() as client:
        assert client.send(b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n").answer().status == 200


CHECKS = {
    "haproxy": "OPTIONS / HTTP/1.0\r\n\r\n",
    "haproxy with a star": "OPTIONS * HTTP/1.0\r\n\r\n",
    "nginx's tengine": "GET / HTTP/1.0\r\n\r\n",
    "an F5": "GET / HTTP/1.1\r\nHost: \r\nConnection: Close\r\n\r\n",
    "ELB": "GET / HTTP/1.1\r\nHost: 10.0.0.5:80\r\nConnection: close\r\nUser-Agent: ELB-HealthChecker/2.0\r\n"
    "Accept-Encoding: gzip, compressed\r\n\r\n",
    "kubelet": "GET / HTTP/1.1\r\nHost: 10.0.0.5:8000\r\nUser-Agent: kube-probe/1.31\r\nAccept: */*\r\n"
    "Connection: close\r\n\r\n",
    "varnish": "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "keepalived": "GET / HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: [::1]:80\r\n\r\n",
    "Apache of itself": "OPTIONS * HTTP/1.0\r\nUser-Agent: Apache (internal dummy connection)\r\n\r\n",
    "ab": "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\nHost: localhost:8000\r\nUser-Agent: ApacheBench/2.3\r\n\r\n",
    "a line too many before it": "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("name", CHECKS)
def test_health_checks_are_answered_with_200(tmp_path: Path, name: str) -> None:
    with Rig(method, tmp_path) as rig, rig.serving().connect() as client:
        answer = client.send(CHECKS[name].encode()).answer()
        assert (answer.status, answer.body.partition(b" ")[2]) == (200, b"/ ")


CURL = shutil.which("curl")


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["-X", "BAN"], "BAN / "),
        (["-X", "MKCALENDAR", "-d", "<a/>"], "MKCALENDAR / <a/>"),
        (["-X", "purge"], "purge / "),
        (["-H", "Host;"], "GET / "),
        (["-X", "REPORT", "-H", "Transfer-Encoding: chunked", "-d", "abc"], "REPORT / abc"),
        (["-H", "Expect: 100-continue", "-d", "abc"], "POST / abc"),
        (["-0", "-X", "PROPFIND", "-d", "abc"], "PROPFIND / abc"),
        (["-X", "OPTIONS", "--request-target", "*"], "OPTIONS / "),
    ],
)
def test_what_curl_says_reaches_the_application(tmp_path: Path, flags: list[str], told: str) -> None:
    with Rig(method, tmp_path) as rig:
        rig.serving()
        url = f"http://127.0.0.1:{rig.address[1]}/"
        assert CURL is not None
        said = subprocess.run(
            [CURL, "-sS", "-m", "60", *flags, url], capture_output=True, text=True, timeout=90, check=True
        )
        assert said.stdout == told
