"""Claims about what stands before HTTP in a real worker: the PROXY protocol, TLS, trusted proxies."""

from __future__ import annotations

import hashlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from srvd.tls import material
from srvd.tls.material import Material
from srvd.worker.net.front import Front, make_front
from srvd.worker.net.tls import TlsListener, TlsTransport
from srvd.worker.net.transport import READ
from tests.support.certificates import Authority
from tests.support.waiting import stays, wait_for
from tests.support.worker_rig import Client, Rig

BIG = 24 << 20
TOLD = (
    "REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME", "HTTP_HOST", "wsgi.url_scheme",
    "SSL_CLIENT_VERIFY", "SSL_CLIENT_S_DN", "SSL_CLIENT_I_DN", "SSL_CLIENT_M_SERIAL",
)  # fmt: skip


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Any:
    path = environ["PATH_INFO"]
    if path == "/upload":
        digest = hashlib.sha256()
        while piece := environ["wsgi.input"].read(65_536):
            digest.update(piece)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [digest.hexdigest().encode()]
    if path == "/download":
        start_response("200 OK", [("Content-Type", "application/x"), ("Content-Length", str(BIG))])
        return (bytes([at % 251]) * 65_536 for at in range(BIG // 65_536))
    if path == "/file":
        start_response("200 OK", [("Content-Type", "application/x")])
        return environ["wsgi.file_wrapper"](open(environ["QUERY_STRING"], "rb"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/fail":
        return fail()
    return ["\n".join(f"{key}={environ[key]}" for key in TOLD if key in environ).encode("latin-1")]


def fail() -> Iterator[bytes]:
    yield b"the first half"
    raise RuntimeError("no second half")


def front(*, tls: Material | None = None, **told: Any) -> Front:
    plain = {"proxy_protocol": False, "proxy_from": [], "trusted_proxies": [], "forwarded": "x-forwarded"}
    return make_front(plain | told, None if tls is None else material.pack(tls))


PROXY: dict[str, Any] = {"proxy_protocol": True, "proxy_from": ["127.0.0.0/8"]}
HEADER_1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n"
HEADER_2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack(">HH", 56324, 443)
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def told(client: Client, path: str = "/", *fields: str) -> dict[str, str]:
    """What the application was told of the client."""
    answer = client.get(path, *fields)
    assert answer.status == 200
    return dict(line.split("=", 1) for line in answer.body.decode().splitlines())


class TlsClient(Client):
    """The same over TLS."""

    def __init__(self, address: Any, context: ssl.SSLContext, name: str = "shop.example", first: bytes = b"") -> None:
        super().__init__(address)
        self.sock.sendall(first)
        plain = self.sock
        try:
            self.sock = self.tls = context.wrap_socket(plain, server_hostname=name, suppress_ragged_eofs=False)
        except BaseException:
            plain.close()
            raise


def get_over_tls(rig: Rig, context: ssl.SSLContext) -> int:
    """The status of one request on a connection of its own."""
    with TlsClient(rig.address, context) as client:
        return client.get().status


@contextmanager
def over_tls(
    tmp_path: Path, authority: Authority, context: ssl.SSLContext | None = None, **settings: Any
) -> Iterator[tuple[Rig, TlsClient]]:
    """A worker that speaks TLS, and a client that does."""
    with Rig(app, tmp_path, front=front(tls=authority.material()), **settings) as rig:
        rig.serving()
        with TlsClient(rig.address, context or authority.client()) as client:
            yield rig, client


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


# -- PROXY ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [HEADER_1, HEADER_2])
def test_the_client_of_a_balancer_is_who_the_application_sees(tmp_path: Path, header: bytes) -> None:
    with Rig(app, tmp_path, front=front(**PROXY)) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(header + GET)
            seen = client.answer().body.decode()
            assert "REMOTE_ADDR=192.0.2.7\nREMOTE_PORT=56324\nSERVER_NAME=198.51.100.1\nSERVER_PORT=443" in seen
            assert told(client)["REMOTE_ADDR"] == "192.0.2.7"  # the next request, too
        with rig.connect() as client:
            for at in range(len(header)):
                client.send(header[at : at + 1])
                time.sleep(0.001)  # so that the pieces come one by one
            assert told(client)["REMOTE_ADDR"] == "192.0.2.7"


def test_a_balancer_that_asks_for_itself_is_seen_itself(tmp_path: Path) -> None:
    with Rig(app, tmp_path, front=front(**PROXY)) as rig:
        rig.serving()
        for header in (LOCAL, b"PROXY UNKNOWN\r\n"):
            with rig.connect() as client:
                assert told(client.send(header))["REMOTE_ADDR"] == "127.0.0.1"


def test_a_stranger_may_not_write_a_proxy_header(tmp_path: Path) -> None:
    with Rig(app, tmp_path, front=front(proxy_protocol=True, proxy_from=["10.0.0.0/8", "unix"])) as rig:
        rig.serving()
        for _ in range(3):
            with rig.connect() as client:
                try:
                    client.send(HEADER_1 + GET)
                except (BrokenPipeError, ConnectionResetError):
                    continue
                assert client.ended()
        assert rig.log().count("PROXY header") == 1  # whoever connects must not fill the log
        assert "127.0.0.1 may not write one" in rig.log()


def test_a_unix_socket_may_when_it_is_said(tmp_path: Path) -> None:
    with Rig(app, tmp_path, unix=True, front=front(proxy_protocol=True, proxy_from=["unix"])) as rig:
        rig.serving()
        with rig.connect() as client:
            assert told(client.send(HEADER_2))["REMOTE_PORT"] == "56324"


@pytest.mark.parametrize("data", [GET, b"\x16\x03\x01\x02\x00", b"PROXY nonsense\r\n" + GET])
def test_without_a_good_header_nothing_is_answered(tmp_path: Path, data: bytes) -> None:
    with Rig(app, tmp_path, front=front(**PROXY)) as rig:
        rig.serving()
        with rig.connect() as client:
            assert client.send(data).ended()
        rig.connections(0)


def test_a_header_has_header_timeout(tmp_path: Path) -> None:
    with Rig(app, tmp_path, front=front(**PROXY), header_timeout=0.3) as rig:
        rig.serving()
        with rig.connect() as silent, rig.connect() as slow:
            slow.send(HEADER_1[:9])
            began = time.monotonic()
            assert silent.ended()
            assert slow.ended()
            assert 0.2 < time.monotonic() - began < 5


def test_a_half_header_does_not_spin(tmp_path: Path) -> None:
    with Rig(app, tmp_path, front=front(**PROXY)) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(HEADER_1[:9])
            rig.connections(1)
            before = cpu(rig.pid)
            assert stays(lambda: cpu(rig.pid) - before < 0.2, 0.5)


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_drain_waits_for_handshakes_only_as_for_idle_ones(tmp_path: Path) -> None:
    with Rig(app, tmp_path, front=front(**PROXY)) as rig:
        rig.serving()
        with rig.connect() as silent, rig.connect() as client:
            rig.connections(2)
            rig.drain(leaving=True)
            client.send(HEADER_1 + GET)
            assert client.answer().status == 200
            assert silent.ended()
            assert rig.wait() == 0


# -- trusted proxies ------------------------------------------------------------------------------------------------


def test_a_trusted_proxy_is_believed(tmp_path: Path) -> None:
    with Rig(app, tmp_path, front=front(trusted_proxies=["127.0.0.1"])) as rig, rig.serving().connect() as client:
        seen = told(
            client, "/", "X-Forwarded-For: 6.6.6.6, 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /a"
        )
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["SCRIPT_NAME"]) == ("1.2.3.4", "https", "/a")
        assert told(client)["REMOTE_ADDR"] == "127.0.0.1"
        assert client.get("/", "X-Forwarded-Proto: http, https").status == 400


@pytest.mark.parametrize("networks", [[], ["10.0.0.0/8", "unix"]])
def test_nobody_else_is_believed_loopback_neither(tmp_path: Path, networks: list[str]) -> None:
    chosen = front(trusted_proxies=networks) if networks else None
    with Rig(app, tmp_path, front=chosen) as rig, rig.serving().connect() as client:
        seen = told(client, "/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil")
        assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["HTTP_HOST"]) == ("127.0.0.1", "http", "test")


def test_rfc_7239_over_a_unix_socket(tmp_path: Path) -> None:
    chosen = front(trusted_proxies=["unix"], forwarded="forwarded")
    with Rig(app, tmp_path, unix=True, front=chosen) as rig, rig.serving().connect() as client:
        seen = told(client, "/", 'Forwarded: for="[2001:db8::1]:99";proto=https;host=shop.example')
        assert [seen[key] for key in ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST")] == [
            "2001:db8::1", "99", "https", "shop.example",
        ]  # fmt: skip


def test_who_is_trusted_is_asked_of_the_client_behind_the_balancer(tmp_path: Path) -> None:
    chosen = front(**PROXY, trusted_proxies=["192.0.2.0/24"])
    with Rig(app, tmp_path, front=chosen) as rig:
        rig.serving()
        with rig.connect() as client:
            assert told(client.send(HEADER_1), "/", "X-Forwarded-For: 1.2.3.4")["REMOTE_ADDR"] == "1.2.3.4"
        with rig.connect() as client:
            assert told(client.send(LOCAL), "/", "X-Forwarded-For: 1.2.3.4")["REMOTE_ADDR"] == "127.0.0.1"


# -- TLS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_over_tls_with_keep_alive(tmp_path: Path, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.client()
    context.minimum_version = context.maximum_version = version
    with over_tls(tmp_path, authority, context) as (rig, client):
        for _ in range(5):
            assert told(client)["wsgi.url_scheme"] == "https"
        pipelined = client.send(GET * 20)
        assert [pipelined.answer().status for _ in range(20)] == [200] * 20
        assert client.tls.selected_alpn_protocol() == "http/1.1"
        name, _, _ = client.tls.cipher() or ("", "", 0)
        assert "GCM" in name or "CHACHA20" in name
        assert rig.facts().connections == 1
        tidy = client.tls.unwrap()
        assert tidy.recv(1) == b""
        rig.connections(0)


def test_a_request_byte_by_byte_over_tls(tmp_path: Path, authority: Authority) -> None:
    with over_tls(tmp_path, authority) as (_, client):
        for at in range(len(GET)):
            client.send(GET[at : at + 1])
        assert client.answer().status == 200


def test_an_idle_connection_is_closed_in_the_way_of_tls(tmp_path: Path, authority: Authority) -> None:
    with over_tls(tmp_path, authority, keepalive_timeout=0.2) as (rig, client):
        assert client.get().status == 200
        assert client.ended()  # not an SSLEOFError
        with TlsClient(rig.address, authority.client()) as other:
            assert other.get("/", "Connection: close").status == 200
            assert other.ended()


def test_a_body_that_was_cut_off_does_not_look_whole(tmp_path: Path, authority: Authority) -> None:
    with over_tls(tmp_path, authority) as (_, client):
        client.send(b"GET /fail HTTP/1.0\r\n\r\n")
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            client.rest()


def test_a_client_that_is_done_talking_is_answered(tmp_path: Path, authority: Authority) -> None:
    with Rig(app, tmp_path, front=front(tls=authority.material())) as rig:
        rig.serving()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.client().wrap_bio(incoming, outgoing, server_hostname="shop.example")
        with rig.connect() as client:
            shake_hands(client.sock, tls, incoming, outgoing)
            tls.write(GET)
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()
            client.sock.sendall(outgoing.read())
            incoming.write(client.rest())  # the server ends the connection, without waiting for keepalive_timeout
            assert tls.read(65_536).startswith(b"HTTP/1.1 200 OK\r\n")


def shake_hands(sock: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65_536))
        else:
            sock.sendall(outgoing.read())
            return


def test_a_first_request_that_comes_with_the_handshakes_end_is_answered(tmp_path: Path, authority: Authority) -> None:
    with Rig(app, tmp_path, front=front(tls=authority.material())) as rig:
        rig.serving()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.client().wrap_bio(incoming, outgoing, server_hostname="shop.example")
        with rig.connect() as client:
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            client.send(outgoing.read())
            incoming.write(client.sock.recv(65_536))
            tls.do_handshake()
            tls.write(GET)
            client.send(outgoing.read())  # Finished and the request in one piece
            incoming.write(client.sock.recv(65_536))
            while True:
                try:
                    assert tls.read(65_536).startswith(b"HTTP/1.1 200 OK\r\n")
                    break
                except ssl.SSLWantReadError:
                    incoming.write(client.sock.recv(65_536))


def test_a_slow_handshake_ends_with_header_timeout_and_holds_nobody_up(tmp_path: Path, authority: Authority) -> None:
    with Rig(app, tmp_path, front=front(tls=authority.material()), header_timeout=3) as rig:
        rig.serving()
        slow = [rig.connect() for _ in range(20)]
        for client in slow[:10]:
            client.send(b"\x16\x03\x01")
        with TlsClient(rig.address, authority.client()) as client:
            assert client.get().status == 200
            assert not select.select([client.sock for client in slow], [], [], 0)[0]  # all of them are still open
            assert all(client.ended() for client in slow)
        for client in slow:
            client.sock.close()
        rig.connections(0)


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x00\x05hello", b"SSH-2.0-x\r\n", bytes(300), b"\xff" * 300])
def test_garbage_instead_of_a_handshake_ends_the_connection(
    tmp_path: Path, authority: Authority, garbage: bytes
) -> None:
    with Rig(app, tmp_path, front=front(tls=authority.material())) as rig:
        rig.serving()
        for _ in range(3):
            with rig.connect() as client:
                client.send(garbage)
                assert b"HTTP" not in client.rest()
        rig.connections(0)
        assert rig.log().count("TLS handshake") == 1


def test_http_where_tls_is_spoken_is_told_so(tmp_path: Path, authority: Authority) -> None:
    with Rig(app, tmp_path, front=front(tls=authority.material())) as rig, rig.serving().connect() as client:
        assert client.get().status == 400
        assert client.ended()


def test_old_versions_are_refused(tmp_path: Path, authority: Authority) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Rig(app, tmp_path, front=front(tls=authority.material(minimum="1.3"))) as rig:
        rig.serving()
        with pytest.raises(ssl.SSLError):
            TlsClient(rig.address, context)


def test_the_certificate_is_that_of_the_name_that_is_asked_for(tmp_path: Path, authority: Authority) -> None:
    chosen = front(tls=authority.material("shop.example", "*.blog.example", "other.example"))
    with Rig(app, tmp_path, front=chosen) as rig:
        rig.serving()
        names = {"shop.example": 0, "ann.blog.example": 1, "other.example": 2, "OTHER.example": 2}
        for name in names:
            with TlsClient(rig.address, authority.client(), name) as client:  # which checks the name
                assert client.get().status == 200
        lax = authority.client()
        lax.check_hostname = False
        for name in ("unknown.example", "a.b.blog.example", "blog.example"):
            with TlsClient(rig.address, lax, name) as client:
                certificate = client.tls.getpeercert() or {}
                assert ("DNS", "shop.example") in certificate["subjectAltName"]


def test_a_client_must_show_a_certificate_when_one_is_required(tmp_path: Path, authority: Authority) -> None:
    mine = authority.file("ann@shop.example", common_name="Ann, \u20ac")
    with Rig(app, tmp_path, front=front(tls=authority.material(clients="required"))) as rig:
        rig.serving()
        with TlsClient(rig.address, authority.client(mine)) as client:
            for _ in range(2):
                seen = told(client)
                assert seen["SSL_CLIENT_VERIFY"] == "SUCCESS"
                assert seen["SSL_CLIENT_S_DN"].startswith("CN=Ann\\, \u20ac,OU=")
                assert "O=trustme" in seen["SSL_CLIENT_I_DN"]
                assert int(seen["SSL_CLIENT_M_SERIAL"], 16) > 0
        with pytest.raises(OSError, match=r"(?i)certificate required|reset|pipe"):  # told after the client's handshake
            get_over_tls(rig, authority.client())
        stranger = Authority(tmp_path)
        with pytest.raises(OSError, match=r"(?i)unknown ca|reset|pipe|decrypt"):
            get_over_tls(rig, authority.client(stranger.file("bob@shop.example")))
        wait_for(lambda: "TLS handshake" in rig.log())
        rig.connections(0)


def test_a_client_may_show_a_certificate_when_it_is_optional(tmp_path: Path, authority: Authority) -> None:
    mine = authority.file("ann@shop.example")
    with Rig(app, tmp_path, front=front(tls=authority.material(clients="optional"))) as rig:
        rig.serving()
        with TlsClient(rig.address, authority.client(mine)) as client:
            assert told(client)["SSL_CLIENT_VERIFY"] == "SUCCESS"
        with TlsClient(rig.address, authority.client()) as client:
            seen = told(client, "/", "SSL-Client-Verify: SUCCESS", "SSL_CLIENT_S_DN: CN=me")
            assert seen["SSL_CLIENT_VERIFY"] == "NONE"
            assert "SSL_CLIENT_S_DN" not in seen


def test_a_session_is_resumed_by_another_worker(tmp_path: Path, authority: Authority) -> None:
    chosen = front(tls=authority.material())
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there the session is there right after the handshake
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with Rig(app, tmp_path / "one", front=chosen) as one, Rig(app, tmp_path / "two", front=chosen) as two:
        with TlsClient(one.serving().address, context) as client:
            session = client.tls.session
        again = socket.create_connection(two.serving().address)
        with context.wrap_socket(again, server_hostname="shop.example", session=session) as resumed:
            assert resumed.session_reused


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_handshakes_that_do_not_go_on_make_room_for_one_that_does(
    tmp_path: Path, authority: Authority, begun: bytes
) -> None:
    with Rig(app, tmp_path, front=front(tls=authority.material()), max_connections=2, header_timeout=600.0) as rig:
        silent = [rig.connect().send(begun) for _ in range(3)]
        rig.serving()
        for _ in range(3):
            assert get_over_tls(rig, authority.client()) == 200
        assert silent[0].ended()
        for client in silent:
            client.sock.close()


def test_tls_behind_a_balancer(tmp_path: Path, authority: Authority) -> None:
    with Rig(app, tmp_path, front=front(tls=authority.material(), **PROXY)) as rig:
        for header in (HEADER_1, HEADER_2):
            with TlsClient(
                rig.serving().address if header == HEADER_1 else rig.address, authority.client(), first=header
            ) as client:
                seen = told(client)
                assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("192.0.2.7", "https")


# -- much over TLS --------------------------------------------------------------------------------------------------


def expected() -> str:
    digest = hashlib.sha256()
    for at in range(BIG // 65_536):
        digest.update(bytes([at % 251]) * 65_536)
    return digest.hexdigest()


def digest_of_body(client: Client) -> str:
    assert b"Content-Length: %d\r\n" % BIG in client.read_until(b"\r\n\r\n")
    digest = hashlib.sha256(client.buffer)
    left = BIG - len(client.buffer)
    client.buffer = b""
    while left:
        data = client.sock.recv(min(left, 1 << 16))
        assert data
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_slow_reader_gets_all_of_a_big_download(tmp_path: Path, authority: Authority, threads: int) -> None:
    with over_tls(tmp_path, authority, threads=threads) as (rig, client):
        for _ in range(2):
            client.send(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
            assert stays(lambda: rig.facts().connections, 0.2)  # the worker fills the socket, and has to wait
            assert get_over_tls(rig, authority.client()) == 200
            assert digest_of_body(client) == expected()


@pytest.mark.parametrize("stream_bodies", [False, True])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_big_upload_arrives_whole(tmp_path: Path, authority: Authority, threads: int, stream_bodies: bool) -> None:
    body = bytes(range(256)) * (BIG // 256)
    with over_tls(tmp_path, authority, threads=threads, stream_bodies=stream_bodies) as (_, client):
        client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
        client.send(body)
        assert client.answer().body.decode() == hashlib.sha256(body).hexdigest()
        assert client.get().status == 200


class Watched:
    """OpenSSL's object for one connection; notes when two threads are in it at once, which it does not bear."""

    def __init__(self, tls: ssl.SSLObject) -> None:
        self._tls = tls
        self._inside = threading.Lock()
        self.clashes = 0

    @contextmanager
    def _alone(self) -> Iterator[None]:
        alone = self._inside.acquire(blocking=False)
        self.clashes += not alone
        time.sleep(0.001)  # the other one has its chance
        yield
        if alone:
            self._inside.release()

    def read(self, count: int) -> bytes:
        with self._alone():
            try:
                return self._tls.read(count)
            except ssl.SSLWantReadError as exc:
                raised = exc
        raise raised

    def write(self, data: bytes) -> int:
        with self._alone():
            return self._tls.write(data)

    def pending(self) -> int:
        return self._tls.pending()


def test_a_body_may_be_read_in_one_thread_and_answered_in_another(authority: Authority) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ThreadPoolExecutor(2) as pool, theirs:
        shaking = pool.submit(authority.client().wrap_socket, theirs, server_hostname="shop.example")
        encrypted = TlsListener(authority.material()).wrap(ours)
        wait_for(lambda: _shaken(encrypted))
        with shaking.result() as client:
            watched = Watched(encrypted._tls)
            encrypted._tls = watched  # type: ignore[assignment]  # as far as it is used
            client.sendall(b"x" * 10_000)
            sending = pool.submit(lambda: [encrypted.send(b"y" * 100) for _ in range(50)])
            received = b""
            while len(received) < 10_000 or not sending.done():
                with suppress(BlockingIOError):
                    received += encrypted.recv(READ)
            assert sending.result() == [100] * 50
            assert received == b"x" * 10_000
            assert watched.clashes == 0
            ours.close()


@pytest.mark.parametrize("end", ["close_notify", "FIN", "nothing"])
def test_all_records_of_one_read_are_decrypted_and_the_end_behind_them_is_seen(authority: Authority, end: str) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ThreadPoolExecutor(1) as pool, theirs, ours:
        shaking = pool.submit(authority.client().wrap_socket, theirs, server_hostname="shop.example")
        encrypted = TlsListener(authority.material()).wrap(ours)
        wait_for(lambda: _shaken(encrypted))
        with shaking.result() as client:
            for piece in (b"a" * 20_000, b"b", b"c" * 300):
                client.sendall(piece)
            if end == "close_notify":
                client.settimeout(0)
                with suppress(ssl.SSLWantReadError):
                    client.unwrap()
            elif end == "FIN":
                client.shutdown(socket.SHUT_WR)
            assert encrypted.recv(READ) == b"a" * 20_000 + b"b" + b"c" * 300
            if end == "nothing":
                with pytest.raises(BlockingIOError):
                    encrypted.recv(READ)
            else:
                assert encrypted.recv(READ) == b""


def _shaken(encrypted: TlsTransport) -> bool:
    with suppress(BlockingIOError):
        return encrypted.handshake()
    return False


def test_a_file_is_read_and_encrypted(tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 20_000)
    with over_tls(tmp_path, authority) as (_, client):
        assert client.get(f"/file?{file}").body == file.read_bytes()
        assert client.get().status == 200


@pytest.mark.parametrize("threads", [1, 4])
def test_a_reader_that_goes_away_leaves_nothing_behind(tmp_path: Path, authority: Authority, threads: int) -> None:
    with Rig(app, tmp_path, front=front(tls=authority.material()), send_timeout=0.5, threads=threads) as rig:
        rig.serving()
        with TlsClient(rig.address, authority.client()) as client:
            client.send(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n").read(1000)
        idle = TlsClient(rig.address, authority.client()).send(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
        rig.connections(0)
        idle.sock.close()
        assert "a bug in srvd" not in rig.log()
