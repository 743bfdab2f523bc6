"""What the head of a request becomes: the face that a calling convention (WSGI, ASGI) turns towards `HeadReader`.

Holds no convention itself: the names of an environ or of a scope are known to the sink alone. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from srvd.http.h1.guard import Line

__all__ = ["Certificate", "Client", "Ends", "Fields", "Scope", "Sink", "joined"]

Scope = dict[str, Any]
"""What a convention tells its application of a request: the environ of WSGI, the scope of ASGI."""

Fields = Collection[tuple[bytes, bytes]]
"""Header fields in the order in which they came: name and value as received, maybe with white space behind the value.

Valid until the next head is read.
"""


class Certificate(NamedTuple):
    """The client's certificate, verified; all empty if the client had none."""

    subject: str = ""  # as RFC 4514 spells it
    issuer: str = ""
    serial: str = ""
    pem: str = ""


class Ends(NamedTuple):
    """The two ends of one connection. Addresses are "" for a Unix socket, and so are ports that are not known."""

    client: str = ""
    client_port: str = ""
    server: str = "localhost"
    server_port: str = "80"
    scheme: str = "http"
    certificate: Certificate | None = None  # None: no certificate was asked for
    path: str = ""  # of a Unix socket
    tls: tuple[int, int] | None = None  # version and cipher suite, by their numbers in TLS; None without TLS


class Client(NamedTuple):
    """What a trusted proxy says of its client; "" for what it does not say."""

    address: str | None  # None: nothing was said; "": the client is hidden, or not known
    port: str
    scheme: str
    host: str
    prefix: str  # where the application is mounted, decoded, without a slash at its end


class Sink(Protocol):
    """Makes the parts of a scope. A part may be used for many requests: it is copied into each scope."""

    def connection(self, ends: Ends) -> Scope:
        """The part that all requests of a connection share."""

    def line(self, line: Line) -> Scope:
        """The part that follows from a request line."""

    def fields(self, fields: Fields) -> Scope:
        """The part that follows from a header section."""

    def field(self, name: bytes, value: bytes) -> Any:
        """What one field comes to, for `section`. It may be used for many requests."""

    def section(self, parts: list[Any]) -> Scope:
        """As `fields`, of fields that have gone through `field`, and no name of which came twice."""

    def scheme(self, scope: Scope) -> str:
        """The scheme of the client's connection."""

    def put_host(self, scope: Scope, host: str) -> None:
        """Puts `host` in the place of the Host field."""

    def put_client(self, scope: Scope, client: Client) -> None:
        """Puts the client in the place of the proxy that speaks for it."""


def joined(fields: Fields) -> dict[bytes, bytes]:
    """Each field once, its name in lower case: values of one name become one list (RFC 9110 section 5.3; cookies:
    RFC 9113 section 8.2.3).
    """
    found: dict[bytes, bytes] = {}
    for spelling, white in fields:
        name, value = spelling.lower(), white.rstrip()
        before = found.get(name)
        found[name] = value if before is None else before + (b"; " if name == b"cookie" else b",") + value
    return found
