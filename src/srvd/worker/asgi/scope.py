"""Makes the scope of a request (ASGI 3.0, HTTP 2.5): the sink for ASGI, and the facts that the access log spells.

Checks nothing: `http/` has accepted the fields before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srvd.http.access_line import Names
from srvd.http.h1.guard import Line
from srvd.http.h1.sink import Certificate, Client, Ends, Fields, Scope
from srvd.worker.asgi.messages.extensions import HINT, PATH, TRAILERS, ZERO_COPY

__all__ = ["LOG_NAMES", "UPGRADE", "ScopeSink", "own"]

UPGRADE = "srvd.upgrade"
"""Key in the scope of a request that may be the opening handshake of a WebSocket."""

_TLS = "srvd.tls"
"""Key in the parts of a scope: the session of its connection."""

_SPEC = {"version": "3.0", "spec_version": "2.5"}


class ScopeSink:
    """Makes the scopes of one worker's requests. A scope is not the application's before `own` was called for it."""

    def __init__(self, worker: str, root_path: str = "") -> None:
        self._root = _mount(root_path)
        self._base: Scope = {"type": "http", "root_path": self._root, "srvd.worker": worker}

    def connection(self, ends: Ends) -> Scope:
        unix = not ends.client
        session = {} if ends.tls is None else {_TLS: _session(ends.tls, ends.certificate)}
        return {
            **self._base,
            **session,
            "scheme": ends.scheme,
            "client": None if unix else (ends.client, int(ends.client_port or 0)),
            "server": (ends.path, None) if unix else (ends.server, int(ends.server_port or 0)),
        }

    def line(self, line: Line) -> Scope:
        target = line.target
        if target[0] != "/":  # in absolute form, or "*": as a path, like `line.path`
            target = target.partition("://")[2].partition("/")[2]
            target = f"/{target}"
        return {
            "http_version": f"1.{line.minor}",
            "method": line.method,
            "path": _within(self._root, _text(line.path)),
            "raw_path": target.partition("?")[0].encode("ascii"),
            "query_string": line.query.encode("ascii"),
        }

    def fields(self, fields: Fields) -> Scope:
        return self.section([(name.lower(), value.rstrip()) for name, value in fields])

    def field(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        return name.lower(), value

    def section(self, parts: list[tuple[bytes, bytes]]) -> Scope:
        if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in parts):
            return {"headers": parts, UPGRADE: True}
        return {"headers": parts}

    def scheme(self, scope: Scope) -> str:
        scheme: str = scope["scheme"]
        return scheme

    def put_host(self, scope: Scope, host: str) -> None:
        # A new list: the other one is of all requests with the same fields.
        others = [field for field in scope["headers"] if field[0] != b"host"]
        scope["headers"] = [(b"host", host.encode("ascii")), *others]

    def put_client(self, scope: Scope, client: Client) -> None:
        if client.address is not None:
            scope["client"] = (client.address, int(client.port or 0)) if client.address else None
        if client.host:
            self.put_host(scope, client.host)
        if client.scheme:
            scope["scheme"] = client.scheme
        if client.prefix:
            root, prefix = self._root, _text(client.prefix)
            scope["root_path"] = root + prefix
            scope["path"] = f"{root}{prefix}{scope['path'].removeprefix(root)}"


def own(scope: Scope, state: dict[str, Any] | None) -> Scope:
    """Gives a scope what may be changed by its application, and so must not be shared with other requests."""
    scope["asgi"] = _SPEC.copy()
    scope["headers"] = [*scope["headers"]]
    if "extensions" not in scope:
        scope["extensions"] = {PATH: {}, ZERO_COPY: {}, HINT: {}, TRAILERS: {}}
    if _TLS in scope:
        scope["extensions"]["tls"] = scope.pop(_TLS).copy()
    if state is not None:
        scope["state"] = state.copy()
    return scope


def _session(tls: tuple[int, int], certificate: Certificate | None) -> dict[str, Any]:
    """Returns the extension "tls" of a scope (the specification of ASGI, "TLS Extension")."""
    pem = certificate.pem if certificate is not None else ""
    return {
        "server_cert": None,  # not told
        "client_cert_chain": [pem] if pem else [],
        "client_cert_name": certificate.subject if certificate is not None and pem else None,
        "client_cert_error": None,  # a certificate that is not verified ends the handshake
        "tls_version": tls[0] or None,
        "cipher_suite": tls[1] or None,
    }


def _mount(root_path: str) -> str:
    """Returns a root path with a slash before it and none behind it; "" for the root itself."""
    bare = root_path.strip("/")
    return f"/{bare}" if bare else ""


def _within(root: str, path: str) -> str:
    """Returns a path below the root. A proxy that does not cut the prefix off has left it there."""
    return path if not root or path == root or path.startswith(f"{root}/") else root + path


def _text(path: str) -> str:
    """Returns a path of one character a byte as text; what is no UTF-8 becomes U+FFFD."""
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def _field_key(name: str) -> str:
    return f"field {name.lower()}"


def _facts_of(scope: Scope) -> Mapping[str, Any]:
    """Returns the facts of a request for the access log; those of its connection alone if its head was refused."""
    client = scope.get("client")
    facts = {"address": client[0] if client else "", "srvd.worker": scope["srvd.worker"]}
    if "raw_path" not in scope:
        return facts
    query = scope["query_string"].decode("ascii")
    target = scope["raw_path"].decode("ascii")
    facts.update(
        method=scope.get("method", "GET"),  # of a WebSocket it is GET
        target=f"{target}?{query}" if query else target,
        path=scope["path"].encode("utf-8", "replace").decode("latin-1"),
        query=query,
        protocol=f"HTTP/{scope['http_version']}",
    )
    for name, value in scope["headers"]:
        key = _field_key(name.decode("latin-1"))
        text = value.decode("latin-1")
        facts[key] = f"{facts[key]},{text}" if key in facts else text
    return facts


LOG_NAMES = Names(
    address="address",
    method="method",
    target="target",
    path="path",
    query="query",
    protocol="protocol",
    worker="srvd.worker",
    field=_field_key,
    facts=_facts_of,
)
