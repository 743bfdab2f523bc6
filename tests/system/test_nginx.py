"""nginx in front of srvd's Unix socket, with connections that stay open between the two.

Debian's package is enough (nginx-light); without it these tests are skipped.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from typing import Any

import pytest

from tests.conftest import Starter
from tests.support.apps import shared
from tests.support.daemon import Srvd
from tests.support.load import load_on
from tests.support.nginx import needs_nginx, nginx
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client

pytestmark = [
    pytest.mark.system,
    needs_nginx,
]

ROOT = Path(__file__).parents[2]
CONFIG = """
[listeners.web]
bind = ["unix:{folder}/web.sock"]

[pools.web]
app = "{app}"
pythonpath = ["{root}"]
workers = 1
{more}
"""
IN_FRONT = """client_max_body_size 0;
  upstream srvd {
    server unix:FOLDER/web.sock;
    keepalive 16;
  }
  server {
    listen 127.0.0.1:PORT;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $http_host;
    location / { proxy_pass http://srvd; }
    location /direct/ {
      proxy_pass http://srvd/;
      proxy_buffering off;
      proxy_request_buffering off;
    }
  }"""
"""FOLDER stands for that of the socket."""


def _links(folder: Path) -> Iterator[str]:
    """Where the links point that are still there when they are read."""
    for entry in folder.iterdir():
        try:
            yield os.readlink(entry)
        except FileNotFoundError:
            continue


class Front:
    """srvd with one worker, and nginx in front of it."""

    def __init__(self, srvd: Srvd, port: int) -> None:
        self.srvd = srvd
        self.address = ("127.0.0.1", port)

    def ask(self, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """One request on a connection of its own; the response with its body in `body`."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            return ask(connection, path, method, body, headers)
        finally:
            connection.close()

    def upstream(self) -> set[str]:
        """The connections that nginx has to the worker: sockets by their inodes."""
        pid = self.srvd.serving()[0]["pid"]
        held = set(_links(Path(f"/proc/{pid}/fd")))
        known = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        connected = {
            f"socket:[{cells[6]}]"
            for cells in known
            if cells[7:] == [f"{self.srvd.folder}/web.sock"] and cells[5] == "03"
        }
        return held & connected


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read()


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    method: str = "GET",
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    chunked = body is not None and not isinstance(body, bytes)
    connection.request(method, path, body, headers or {}, encode_chunked=chunked)
    return Answer(connection.getresponse())


@pytest.fixture(scope="module")
def site(module_starter: Starter) -> Iterator[Front]:
    """With the Flask application of apps/."""
    with _front(module_starter, "tests.support.apps.flask_app:app") as front:
        (front.srvd.folder / shared.STATIC).mkdir()
        (front.srvd.folder / shared.STATIC / "hello.txt").write_text("a static file\n")
        yield front


@contextmanager
def _front(starter: Starter, app: str, more: str = "", *, listener: str = "", http: str = IN_FRONT) -> Iterator[Front]:
    """`more` are lines of the pool, `listener` of the listener."""
    srvd = starter.new(config="[pools.web]")
    config = CONFIG.format(folder=srvd.folder, app=app, root=ROOT, more=more)
    srvd.configure(config.replace("[listeners.web]", f"[listeners.web]\n{listener}"))
    srvd.start()
    with nginx(starter.folder, http.replace("FOLDER", str(srvd.folder))) as port:
        yield Front(srvd, port)


def _of_the_guide() -> str:
    """The block of docs/howto/tls.md, for the sockets of a test."""
    block = (ROOT / "docs/howto/tls.md").read_text().split("```nginx\n")[1].partition("```")[0]
    return block.replace("unix:/run/shop/", "unix:FOLDER/").replace("listen 80", "listen 127.0.0.1:PORT")


# -- claims -------------------------------------------------------------------------------------------------------


def test_many_requests_share_few_connections(site: Front) -> None:
    connections = [http.client.HTTPConnection(*site.address, timeout=30) for _ in range(4)]
    for connection in connections:
        assert ask(connection, "/").status == 200
    before = site.upstream()
    assert before
    for number in range(100):
        assert ask(connections[number % 4], f"/hello/{number}").body == f"hello {number}".encode()
    for connection in connections:
        connection.close()
    assert site.upstream() == before


def test_every_kind_of_response_leaves_the_connection_in_step(site: Front) -> None:
    """A byte too many or too few in one response would be found in the next one."""
    site.ask("/")
    before = site.upstream()
    connection = http.client.HTTPConnection(*site.address, timeout=30)
    for number in range(5):
        for method, path, status, body in (
            ("GET", "/", 200, b"hello from flask"),
            ("HEAD", "/", 200, b""),
            ("GET", "/nothing", 204, b""),
            ("GET", "/stream/2", 200, shared.block(0) + shared.block(1)),
            ("HEAD", "/stream/2", 200, b""),
            ("GET", "/static/hello.txt", 200, b"a static file\n"),
            ("HEAD", "/static/hello.txt", 200, b""),
            ("POST", "/", 405, None),
            ("GET", "/boom", 500, None),
            ("GET", "/stream/0", 200, b""),
        ):
            for prefix in ("", "/direct"):
                answer = ask(connection, prefix + path, method, b"unread" if method == "POST" else None)
                assert answer.status == status, (number, method, path)
                assert body in (None, answer.body), (number, method, path)
    connection.close()
    assert site.upstream() == before


@pytest.mark.parametrize("prefix", ["", "/direct"])
def test_uploads_arrive_whole(site: Front, prefix: str) -> None:
    """With a length, and in chunks: nginx hands them on as they come if it is told to."""
    site.ask("/")
    before = site.upstream()
    count = (20 << 20) // shared.BLOCK
    wanted = hashlib.sha256(b"".join(shared.blocks(count))).hexdigest()
    for body, headers in (
        (shared.blocks(count), {"Content-Length": str(count * shared.BLOCK)}),
        (shared.blocks(count), {"Transfer-Encoding": "chunked"}),
        (b"", {}),
    ):
        told = json.loads(site.ask(f"{prefix}/raw", "PUT", body, headers).body)
        assert told["size"] in (count * shared.BLOCK, 0)
        assert told["sha256"] == (wanted if told["size"] else hashlib.sha256().hexdigest())
    assert site.upstream() == before


@pytest.mark.parametrize("prefix", ["", "/direct"])
def test_a_download_arrives_whole(site: Front, prefix: str) -> None:
    site.ask("/")
    before = site.upstream()
    count = (50 << 20) // shared.BLOCK
    answer = site.ask(f"{prefix}/stream/{count}")
    assert answer.body == b"".join(shared.blocks(count))
    assert site.upstream() == before


def test_a_response_that_breaks_off_is_not_whole_to_nginx_either(site: Front) -> None:
    with pytest.raises(http.client.IncompleteRead):
        site.ask("/direct/half")
    assert site.ask("/").status == 200


def test_a_client_that_leaves_takes_its_connection_with_it(site: Front) -> None:
    """nginx hangs up in the middle of a response; the worker notices, and serves on."""
    with Client(site.address) as client:
        client.send(b"GET /direct/stream/2000 HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read(100_000)
        held = site.upstream()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: site.upstream() < held)
    assert site.ask("/").status == 200


def test_a_connection_that_srvd_closed_is_not_used_again(starter: Starter) -> None:
    with _front(starter, "app:app", 'keepalive_timeout = "200ms"') as front:
        for _ in range(3):
            assert front.ask("/", "POST", b"hello").status == 200
            wait_for(lambda: not front.upstream())


def test_a_reload_behind_nginx_loses_no_request(starter: Starter) -> None:
    """Not even those on connections that nginx holds to the workers that leave."""
    with _front(starter, "app:app") as front, load_on(front.address) as load:
        load.more()
        for release in ("two", "three"):
            front.srvd.good(release)
            assert front.srvd.ctl("reload").returncode == 0
            load.more()
    assert load.failed == []
    assert load.releases == {"one", "two", "three"}


SHOW = """
import json

def app(environ, start):
    size = len(environ["wsgi.input"].read())
    names = ("REQUEST_METHOD", "REMOTE_ADDR", "HTTP_HOST", "HTTP_X_FORWARDED_FOR", "wsgi.url_scheme", "SCRIPT_NAME")
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([size, *(environ.get(name, "-") for name in names)]).encode()]
"""


@pytest.fixture(scope="module")
def guided(module_starter: Starter) -> Iterator[Front]:
    """nginx as the guide configures it, in front of an application that shows what it is asked."""
    (module_starter.folder / "show.py").write_text(SHOW)
    more = f'max_body = "1MiB"\nenv = {{ PYTHONPATH = "{module_starter.folder}" }}'
    listener = 'trusted_proxies = ["unix"]'
    with _front(module_starter, "show:app", more, listener=listener, http=_of_the_guide()) as front:
        yield front


@pytest.mark.parametrize(
    "sent",
    ["", "10.0.0.7", "localhost", "fe80::1%en0", '"10.0.0.7"', "10.0.0.7, -", "010.001.002.003", "for=203.0.113.9"],
)
def test_what_a_client_says_of_its_address_is_never_a_reason_to_refuse_it(guided: Front, sent: str) -> None:
    answer = guided.ask("/", headers={"X-Forwarded-For": sent})
    _, _, address, host, chain, scheme, mount = json.loads(answer.body)
    assert (answer.status, address, chain, scheme, mount) == (200, "127.0.0.1", "127.0.0.1", "http", "")
    assert host == f"127.0.0.1:{guided.address[1]}"


def test_a_body_that_is_too_long_is_refused_before_nginx_has_all_of_it(guided: Front) -> None:
    """And the connections between the two serve on."""
    length = 100_000_000
    for _ in range(3):
        with socket.create_connection(guided.address, timeout=30) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length)
            sent = 0
            with suppress(OSError):  # closed, once the answer is there
                while sent < length and not select([client], [], [], 0)[0]:
                    sent += client.send(b"x" * 100_000)
            assert sent < length / 2
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")
        assert json.loads(guided.ask("/", "POST", b"x" * 1_000_000).body)[0] == 1_000_000


@pytest.mark.parametrize("method", ["BAN", "REFRESH", "PURGE", "VERSION-CONTROL", "MKCALENDAR", "REPORT", "PROPFIND"])
def test_methods_that_nginx_lets_pass_reach_the_application(guided: Front, method: str) -> None:
    assert json.loads(guided.ask("/", method).body)[1] == method
