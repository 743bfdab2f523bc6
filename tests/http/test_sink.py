"""Claims about the cut between heads and calling conventions: whatever the sink, the same is accepted and refused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import srvd
from srvd.http.h1.guard import Line
from srvd.http.h1.head import HeadReader
from srvd.http.h1.limits import Limits
from srvd.http.h1.reader import Inbound
from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Client, Ends, Fields, Scope
from srvd.http.proxies.forwarded import X_FORWARDED, ForwardedReader
from srvd.http.proxies.networks import Networks
from tests.http.test_guard import ACCEPTED, REFUSED
from tests.support.http_feed import request, whole


class Listing:
    """A sink as ASGI has it: fields stay a list."""

    def connection(self, ends: Ends) -> Scope:
        return {"scheme": ends.scheme, "client": ends.client, "root_path": ""}

    def line(self, line: Line) -> Scope:
        return {"method": line.method, "target": line.target}

    def fields(self, fields: Fields) -> Scope:
        return {"headers": tuple((name.lower(), value) for name, value in fields)}

    def field(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        return name.lower(), value

    def section(self, parts: list[Any]) -> Scope:
        return {"headers": tuple(parts)}

    def scheme(self, scope: Scope) -> str:
        return str(scope["scheme"])

    def put_host(self, scope: Scope, host: str) -> None:
        others = [field for field in scope["headers"] if field[0] != b"host"]
        scope["headers"] = ((b"host", host.encode()), *others)

    def put_client(self, scope: Scope, client: Client) -> None:
        scope["client"] = client.address
        scope["scheme"] = client.scheme or scope["scheme"]
        scope["root_path"] = client.prefix


SINK = Listing()


def read(data: bytes, heads: HeadReader | None = None) -> Scope:
    found = Inbound(heads or HeadReader(Limits(), SINK), SINK.connection(Ends("10.0.0.1"))).receive(data)
    assert found is not None
    return found.scope


@pytest.mark.parametrize("data", [data for _, data, _ in (*REFUSED, *ACCEPTED)])
def test_the_same_is_refused_whatever_becomes_of_the_fields(data: bytes) -> None:
    with_environ = whole(data)
    inbound = Inbound(HeadReader(Limits(), SINK), SINK.connection(Ends()))
    refused = 0
    try:
        if inbound.receive(data) is not None and inbound.body is not None:
            inbound.read_body(b"")
    except Refusal as refusal:
        refused = refusal.status
    assert refused == with_environ.refused


def test_fields_keep_their_order_and_each_of_their_lines() -> None:
    scope = read(request("X-B: 1", "Cookie: a=1", "x-a: \xe9", "X-B: 2", "Cookie: b=2", "X_B: 3", "Proxy: p"))
    assert scope["headers"] == (
        (b"host", b"a"), (b"x-b", b"1"), (b"cookie", b"a=1"), (b"x-a", b"\xe9"), (b"x-b", b"2"), (b"cookie", b"b=2"),
        (b"proxy", b"p"),
    )  # fmt: skip


def test_connection_options_are_found_in_each_line() -> None:
    inbound = Inbound(HeadReader(Limits(), SINK), SINK.connection(Ends()))
    found = inbound.receive(request("Connection: x", "Connection: close"))
    assert found is not None
    assert not found.keep_alive


def test_a_host_in_the_target_reaches_the_sink() -> None:
    scope = read(request(line="GET http://b:81/x HTTP/1.1"))
    assert dict(scope["headers"])[b"host"] == b"b:81"


def test_a_proxy_speaks_to_every_sink() -> None:
    heads = ForwardedReader(Limits(), SINK, X_FORWARDED, Networks(["10.0.0.0/8"]), trusted=True)
    fields = ("X-Forwarded-For: 6.6.6.6, 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /shop/", "Via: x")
    for _ in range(2):  # the second time as remembered
        scope = read(request(*fields), heads)
        assert (scope["client"], scope["scheme"], scope["root_path"]) == ("1.2.3.4", "https", "/shop")
        kept = dict(scope["headers"])
        assert (kept[b"x-forwarded-for"], kept[b"via"]) == (b"1.2.3.4", b"x")
        assert b"x-forwarded-prefix" in kept


def test_http_and_connections_know_no_name_of_a_calling_convention() -> None:
    source = Path(srvd.__file__).parent
    found = [
        f"{path}:{node.lineno}: {node.value}"
        for folder in ("http", "worker/net")
        for path in sorted((source / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if "\n" not in node.value and node.value.startswith(("HTTP_X", "HTTP_H", "HTTP_T", "REMOTE_", "wsgi.", "asgi."))
    ]
    assert found == []
