"""Real applications in Flask, Django and Falcon pass the same tests, as they are and in the validator of PEP 3333.

The applications are in apps/; what is claimed here is claimed of all of them.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
from collections.abc import Iterable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import Starter
from tests.support.apps import shared
from tests.support.daemon import Srvd
from tests.support.worker_rig import Client

pytestmark = [pytest.mark.system, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
UPLOAD = 50 << 20
"""Bytes: more than any buffer on the way."""
DOWNLOAD_BLOCKS = (50 << 20) // shared.BLOCK
BIG_FILE = 8 << 20
CONFIG = f"""
[listeners.web]
bind = ["127.0.0.1:0"]

[pools.web]
app = "tests.support.apps.{{}}_app:app"
pythonpath = ["{ROOT}"]
"""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # lower-case names; the last of each
    cookies: list[str]
    body: bytes

    def json(self) -> Any:
        assert self.status == 200, self
        return json.loads(self.body)


class Site:
    """One running application, and a keep-alive connection to it, which every request has to leave usable."""

    def __init__(self, name: str, srvd: Srvd) -> None:
        self.name = name
        self.srvd = srvd
        self.connect()

    def connect(self) -> None:
        self.connection = self.srvd.connect()
        self.connection.connect()
        self.connection.auto_open = 0  # a connection that srvd closed must not be opened anew behind our back

    def ask(
        self, path: str, method: str = "GET", body: bytes | Iterable[bytes] | None = None, **headers: str
    ) -> Answer:
        """One request; `X_Agent="a"` is the field X-Agent."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        chunked = body is not None and not isinstance(body, bytes) and "Content-Length" not in names
        self.connection.request(method, path, body, names, encode_chunked=chunked)
        response = self.connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        cookies = response.headers.get_all("Set-Cookie") or []
        return Answer(response.status, found, cookies, response.read())


@pytest.fixture(
    scope="module",
    params=[(name, wrapped) for name in ("flask", "django", "falcon") for wrapped in (False, True)],
    ids=lambda param: param[0] + ("-validated" if param[1] else ""),
)
def running(request: pytest.FixtureRequest, module_starter: Starter) -> Iterator[tuple[str, Srvd]]:
    name, wrapped = request.param
    srvd = module_starter.new("--workers", "1", config=CONFIG.format(name), env={"VALIDATE": "1"} if wrapped else {})
    static = srvd.folder / shared.STATIC
    static.mkdir()
    (static / "hello.txt").write_text("a static file\n")
    with (static / "big.bin").open("wb") as big:
        big.writelines(shared.blocks(BIG_FILE // shared.BLOCK))
    yield name, srvd.start()
    assert "AssertionError" not in srvd.logged()
    srvd.stop()


@pytest.fixture
def site(running: tuple[str, Srvd]) -> Iterator[Site]:
    """Whatever a test does, the connection and the worker serve the next request, unless it says otherwise."""
    site = Site(*running)
    worker = site.srvd.names()
    yield site
    assert site.ask("/").body == f"hello from {site.name}".encode()
    assert site.srvd.names() == worker
    site.connection.close()


# -- requests -----------------------------------------------------------------------------------------------------


def test_the_application_knows_how_it_was_asked(site: Site) -> None:
    told = site.ask("/request?a=1&b=%C3%A9&a=2", Host="shop.example:8080", X_Agent="tests").json()
    assert told["url"].startswith("http://shop.example:8080/request?a=1")
    assert (told["query"], told["agent"]) == ({"a": ["1", "2"], "b": ["é"]}, "tests")


def test_paths_are_utf_8(site: Site) -> None:
    answer = site.ask("/hello/J%C3%B6rg%20%E2%82%AC")
    assert answer.body.decode() == "hello Jörg €"


def test_a_form_arrives_field_by_field(site: Site) -> None:
    body = b"name=J%C3%B6rg&word=a+b&word=c%26d"
    told = site.ask("/form", "POST", body, Content_Type="application/x-www-form-urlencoded").json()
    assert told == {"name": ["Jörg"], "word": ["a b", "c&d"]}


def test_an_upload_of_50_mib_arrives_whole(site: Site) -> None:
    told = _upload(site, UPLOAD, chunked=False)
    wanted = _digest(shared.blocks(UPLOAD // shared.BLOCK))
    assert told == {"name": "big.bin", "note": "Grüße", "size": UPLOAD, "sha256": wanted}


def test_an_upload_in_chunks_arrives_whole(site: Site) -> None:
    """The frameworks find its length: to them, a chunked body is like any other."""
    size = 3 << 20
    assert _upload(site, size, chunked=True)["sha256"] == _digest(shared.blocks(size // shared.BLOCK))


@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_body_is_what_was_sent(site: Site, count: int) -> None:
    whole = b"".join(shared.blocks(count))
    wanted = {"size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    assert site.ask("/raw", "PUT", whole).json() == wanted
    assert site.ask("/raw", "PUT", shared.blocks(count)).json() == wanted


def test_a_body_that_nobody_reads_does_not_become_the_next_request(site: Site) -> None:
    """RFC 9112 section 9.3. The method is wrong, so nobody looks at it."""
    assert site.ask("/", "POST", b"GET /boom HTTP/1.1\r\nHost: a\r\n\r\n" * 1000).status == 405


def test_100_continue_is_asked_for_and_sent(site: Site) -> None:
    connection = site.connection
    connection.putrequest("PUT", "/raw")
    connection.putheader("Content-Length", "5")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(b"hello")
    response = connection.getresponse()
    assert json.loads(response.read())["size"] == 5


# -- responses ----------------------------------------------------------------------------------------------------


def test_a_download_of_50_mib_is_streamed(site: Site) -> None:
    site.connection.request("GET", f"/stream/{DOWNLOAD_BLOCKS}")
    response = site.connection.getresponse()
    assert response.getheader("Transfer-Encoding") == "chunked"
    for number in range(DOWNLOAD_BLOCKS):
        assert response.read(shared.BLOCK) == shared.block(number)
    assert response.read() == b""


def test_what_is_streamed_is_sent_at_once(site: Site) -> None:
    go = site.srvd.folder / shared.GO
    site.connection.request("GET", "/steps")
    response = site.connection.getresponse()
    assert response.read(6) == b"first "
    go.touch()
    assert response.read() == b"second"
    go.unlink()


def test_a_download_for_http_1_0_ends_with_the_connection(site: Site) -> None:
    with Client(site.srvd.address()) as client:
        answer = client.get("/stream/5", version="1.0")
    assert not {"content-length", "transfer-encoding"} & set(answer.headers)
    assert answer.body == b"".join(shared.blocks(5))


def test_cookies_go_both_ways(site: Site) -> None:
    cookies = site.ask("/cookies/set").cookies
    assert len(cookies) == 2
    plain = next(cookie for cookie in cookies if cookie.startswith("plain=1"))
    assert {"HttpOnly", "SameSite=Lax"} <= set(plain.split("; "))
    sent = "; ".join(cookie.partition("; ")[0] for cookie in cookies)
    assert site.ask("/cookies", Cookie=sent).json() == {"plain": "1", "words": "two words; quoted"}


def test_a_redirect_leads_there(site: Site) -> None:
    answer = site.ask("/redirect")
    assert answer.status == 302
    assert site.ask(answer.headers["location"]).body == b"hello there"


def test_204_has_no_body_and_no_length(site: Site) -> None:
    answer = site.ask("/nothing")
    assert (answer.status, answer.body) == (204, b"")
    assert not {"content-length", "transfer-encoding"} & set(answer.headers)


def test_head_is_get_without_the_body(site: Site) -> None:
    path = "/static/hello.txt"
    got, head = site.ask(path), site.ask(path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"] == "14"


# -- errors -------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_404(site: Site) -> None:
    assert site.ask("/missing").status == 404


def test_a_wrong_method_is_405(site: Site) -> None:
    assert site.ask("/form", "GET").status == 405


def test_an_exception_is_a_500_that_tells_nothing(site: Site) -> None:
    answer = site.ask("/boom")
    assert answer.status == 500
    assert shared.SECRET.encode() not in answer.body
    site.srvd.wait_logged(shared.SECRET)


def test_an_exception_in_a_stream_is_seen_by_the_client(site: Site) -> None:
    """RFC 9112 section 8: the last chunk does not come, so nobody takes the half for the whole."""
    site.connection.request("GET", "/half")
    response = site.connection.getresponse()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    site.connection.close()
    site.connect()


# -- files --------------------------------------------------------------------------------------------------------


def test_a_static_file_is_sent_and_revalidated(site: Site) -> None:
    answer = site.ask("/static/hello.txt")
    assert (answer.status, answer.body) == (200, b"a static file\n")
    assert answer.headers["content-type"].startswith("text/plain")
    again = site.ask("/static/hello.txt", If_Modified_Since=answer.headers["last-modified"])
    assert (again.status, again.body) == (304, b"")
    older = formatdate(os.stat(site.srvd.folder / "static" / "hello.txt").st_mtime - 3600, usegmt=True)
    assert site.ask("/static/hello.txt", If_Modified_Since=older).status == 200


def test_a_big_static_file_is_sent_whole(site: Site) -> None:
    """Through wsgi.file_wrapper, where there is no validator between."""
    answer = site.ask("/static/big.bin")
    assert answer.headers["content-length"] == str(BIG_FILE)
    assert hashlib.sha256(answer.body).hexdigest() == _digest(shared.blocks(BIG_FILE // shared.BLOCK))


def test_no_path_leads_out_of_the_static_folder(site: Site) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert site.ask(path).status != 200, path


# -- helpers ------------------------------------------------------------------------------------------------------


def _digest(blocks: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for block in blocks:
        found.update(block)
    return found.hexdigest()


def _upload(site: Site, size: int, *, chunked: bool) -> Any:
    """A file of so many bytes as a browser sends it."""
    before = (
        '--edge\r\nContent-Disposition: form-data; name="note"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n'
        'Grüße\r\n--edge\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    after = b"\r\n--edge--\r\n"

    def body() -> Iterator[bytes]:
        yield before
        yield from shared.blocks(size // shared.BLOCK)
        yield after

    headers = {"Content_Type": "multipart/form-data; boundary=edge"}
    if not chunked:
        headers["Content_Length"] = str(len(before) + size + len(after))
    return site.ask("/upload", "POST", body(), **headers).json()
