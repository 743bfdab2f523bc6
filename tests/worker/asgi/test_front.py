"""What stands before HTTP, for an application of ASGI: the PROXY protocol, trusted proxies, TLS."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from srvd.tls import material
from srvd.worker.net.front import Front, make_front
from tests.support.certificates import Authority
from tests.support.worker_rig import Client
from tests.support.worker_rig import Rig as AnyRig

Scope = dict[str, Any]
Rig = partial(AnyRig, lifespan="off")
WITHIN = 30.0
TOLD = ("type", "scheme", "client", "server", "root_path", "path", "raw_path")
BIG = 8 << 20


async def app(scope: Scope, receive: Any, send: Any) -> None:
    told = repr({key: scope[key] for key in TOLD} | {"host": dict(scope["headers"]).get(b"host")})
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": told})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/big":
        for _ in range(BIG // 65_536):
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        told = ""
    await send({"type": "http.response.body", "body": (told if not size else str(size)).encode()})


def front(authority: Authority | None = None, **told: Any) -> Front:
    plain = {"proxy_protocol": False, "proxy_from": [], "trusted_proxies": [], "forwarded": "x-forwarded"}
    return make_front(plain | told, None if authority is None else material.pack(authority.material()))


def seen(client: Client, path: str = "/", *fields: str) -> dict[str, Any]:
    found: dict[str, Any] = eval(client.get(path, *fields).body)
    return found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_the_client_of_a_balancer_is_in_the_scope(tmp_path: Path) -> None:
    with Rig(app, tmp_path, front=front(proxy_protocol=True, proxy_from=["127.0.0.0/8"])) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")
            for _ in range(2):
                found = seen(client)
                assert (found["client"], found["server"]) == (("192.0.2.7", 56324), ("198.51.100.1", 443))


def test_a_trusted_proxy_speaks_for_its_client(tmp_path: Path) -> None:
    fields = (
        "X-Forwarded-For: 192.0.2.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example",
        "X-Forwarded-Prefix: /caf%C3%A9/",
    )  # fmt: skip
    with Rig(app, tmp_path, front=front(trusted_proxies=["127.0.0.1"])) as rig:
        rig.serving()
        with rig.connect() as client:
            for _ in range(3):  # also when the section is remembered
                assert seen(client, "/a%20b", *fields) == {
                    "type": "http",
                    "scheme": "https",
                    "client": ("192.0.2.9", 0),
                    "server": rig.address,
                    "root_path": "/café",
                    "path": "/café/a b",
                    "raw_path": b"/a%20b",
                    "host": b"shop.example",
                }
            assert seen(client)["scheme"] == "http"


def test_a_websocket_behind_a_proxy_that_speaks_tls_is_wss(tmp_path: Path) -> None:
    with Rig(app, tmp_path, front=front(trusted_proxies=["127.0.0.1"])) as rig:
        rig.serving()
        url = f"ws://127.0.0.1:{rig.address[1]}/"
        with connect(url, additional_headers={"X-Forwarded-Proto": "https"}, proxy=None) as ws:
            assert "'wss'" in str(ws.recv(WITHIN))


@pytest.mark.parametrize("certificate", [True, False])
def test_the_session_of_tls_is_in_the_scope(tmp_path: Path, authority: Authority, certificate: bool) -> None:
    async def tells(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": repr(scope["extensions"].get("tls")).encode()})

    own = authority.file("customer.example") if certificate else None
    told = authority.material(clients="optional")
    plain = {"proxy_protocol": False, "proxy_from": [], "trusted_proxies": [], "forwarded": "x-forwarded"}
    with Rig(tells, tmp_path, front=make_front(plain, material.pack(told))) as rig:
        rig.serving()
        with rig.connect() as client:
            client.sock = sock = authority.client(own).wrap_socket(client.sock, server_hostname="shop.example")
            for _ in range(2):
                found = eval(client.get().body)
                version, suite = found.pop("tls_version"), found.pop("cipher_suite")
                assert (version, sock.version()) == (0x0304, "TLSv1.3")
                assert suite == {"TLS_AES_256_GCM_SHA384": 0x1302, "TLS_AES_128_GCM_SHA256": 0x1301,
                                 "TLS_CHACHA20_POLY1305_SHA256": 0x1303}[(sock.cipher() or ("",))[0]]  # fmt: skip
                chain = found.pop("client_cert_chain")
                assert [one.splitlines()[0] for one in chain] == ["-----BEGIN CERTIFICATE-----"] * certificate
                assert (found.pop("client_cert_name") is not None) == certificate
                assert found == {"server_cert": None, "client_cert_error": None}
    with Rig(tells, tmp_path) as rig:
        rig.serving()
        assert rig.get().body == b"None"


def test_bodies_go_both_ways_over_tls(tmp_path: Path, authority: Authority) -> None:
    with Rig(app, tmp_path, front=front(authority)) as rig:
        rig.serving()
        with rig.connect() as client:
            plain = client.sock
            client.sock = authority.client().wrap_socket(plain, server_hostname="shop.example")
            assert seen(client)["scheme"] == "https"
            body = b"y" * (3 << 20)
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert client.answer().body == str(len(body)).encode()
            assert client.get("/big").body == b"x" * BIG
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n" * 10)
            assert [client.answer().status for _ in range(10)] == [200] * 10
        rig.connections(0)
        assert rig.log() == ""


def test_a_websocket_over_tls(tmp_path: Path, authority: Authority) -> None:
    with Rig(app, tmp_path, front=front(authority)) as rig:
        rig.serving()
        url = f"wss://127.0.0.1:{rig.address[1]}/"
        with connect(url, ssl=authority.client(), server_hostname="shop.example", proxy=None) as ws:
            assert "'wss'" in str(ws.recv(WITHIN))
            for message in ("one", b"x" * 1_000_000):
                ws.send(message)
                assert ws.recv(WITHIN) == message
        rig.connections(0)
        assert rig.log() == ""
