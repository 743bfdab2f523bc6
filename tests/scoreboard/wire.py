"""What a check speaks with: a socket, and the few rules of HTTP/1.1 that reading an answer needs."""

from __future__ import annotations

import json
import socket
import time
from typing import Any, NamedTuple

WITHIN = 20.0
"""Seconds that an answer may take."""


class Answer(NamedTuple):
    """One response, as it came."""

    status: int
    fields: list[tuple[str, str]]  # names in lower case
    body: bytes
    whole: bool  # it ended as its head says

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each == name]


class Server(NamedTuple):
    """Where the server under check listens."""

    host: str
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), WITHIN)

    def ask(self, data: bytes, *, head: bool = False) -> Answer:
        """The answer to what one connection sends. Raises OSError or ValueError where none comes."""
        with self.connect() as client, client.makefile("rb") as reader:
            client.sendall(data)
            return read(reader, head=head)

    def get(self, path: str = "/", *fields: str) -> Answer:
        return self.ask(request(path, *fields))

    def scope(self, path: str = "/", *fields: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(path, *fields).body)
        return found

    def seen(self, name: str, value: str) -> bool:
        """Whether the application has noted the value in time."""
        end = time.monotonic() + WITHIN
        while time.monotonic() < end:
            if json.loads(self.get("/seen").body).get(name) == value:
                return True
            time.sleep(0.05)
        return False


def request(path: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: t", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def read(reader: Any, *, head: bool = False) -> Answer:
    """The next final response. Raises ValueError at the end of the connection."""
    while True:
        line = reader.readline()
        if not line:
            raise ValueError("the connection ended without an answer")
        status, fields = int(line.split()[1]), []
        while (field := reader.readline().strip()) != b"":
            name, _, value = field.decode("latin-1").partition(":")
            fields.append((name.lower(), value.strip()))
        if status == 101 or status >= 200:
            break
    told = dict(fields)
    if head or status in (101, 204, 304):
        return Answer(status, fields, b"", whole=True)
    if "content-length" in told:
        length = int(told["content-length"])
        body = reader.read(length)
        return Answer(status, fields, body, len(body) == length)
    if "chunked" not in told.get("transfer-encoding", ""):
        return Answer(status, fields, reader.read(), whole=True)
    pieces = []
    while size := reader.readline():
        length = int(size.split(b";")[0], 16)
        pieces.append(reader.read(length))
        reader.readline()
        if not length:
            return Answer(status, fields, b"".join(pieces), whole=True)
    return Answer(status, fields, b"".join(pieces), whole=False)
