"""The checks: what each asks, where the rule is from, and how it is found out over a socket."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.scoreboard.wire import Server, read, request

HTTP = "ASGI, HTTP and WebSocket 2.5"


class Check(NamedTuple):
    """One claim about a server. `holds` says whether it is true; an OSError or ValueError means that it is not."""

    id: str
    says: str
    source: str
    holds: Callable[[Server], bool]


CHECKS: list[Check] = []


def check(name: str, says: str, source: str = HTTP) -> Callable[[Callable[[Server], bool]], Callable[[Server], bool]]:
    def added(holds: Callable[[Server], bool]) -> Callable[[Server], bool]:
        CHECKS.append(Check(name, says, source, holds))
        return holds

    return added


def _gives(name: str, says: str, source: str, holds: Callable[[Server], bool]) -> None:
    CHECKS.append(Check(name, says, source, holds))


def _refused(head: bytes) -> Callable[[Server], bool]:
    return lambda server: server.ask(head).status in (400, 431, 501)


def _alive(server: Server) -> bool:
    return server.get("/now").body == b"now"


@check("S1", "the scope has every key that the specification names")
def _s1(server: Server) -> bool:
    keys = {"type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path"}
    return keys | {"headers", "client", "server"} <= server.scope().keys()


_gives("S3", "path is decoded", HTTP, lambda s: s.scope("/a%20b%C3%A9")["path"] == "/a b\u00e9")
_gives("S9", "raw_path is as sent", HTTP, lambda s: s.scope("/a%20b")["raw_path"] == {"bytes": "/a%20b"})
_gives("S10", "query_string is not decoded", HTTP, lambda s: s.scope("/?a=%20b")["query_string"] == {"bytes": "a=%20b"})
_gives("S5", "http_version is 1.1", HTTP, lambda s: s.scope()["http_version"] == "1.1")
_gives("S6", "server is the host and the port, a number", HTTP, lambda s: s.scope()["server"] == [s.host, s.port])
_gives("S7", "state comes from the lifespan", "ASGI, Lifespan 2.0", lambda s: s.scope()["state"] == {"of": "lifespan"})
_gives("S11", "the scheme is http", HTTP, lambda s: s.scope()["scheme"] == "http")
_gives("S12", "root_path is empty", HTTP, lambda s: s.scope()["root_path"] == "")


@check("S4", "repeated headers stay apart, in order, with names in lower case")
def _s4(server: Server) -> bool:
    found = [pair for pair in server.scope("/", "X-A: 1", "X-A: 2")["headers"] if pair[0] == {"bytes": "x-a"}]
    return found == [[{"bytes": "x-a"}, {"bytes": value}] for value in "12"]


@check("B1", "a body with a length arrives whole", "RFC 9112, 6.2")
def _b1(server: Server) -> bool:
    return server.ask(request("/echo", method="POST", body=b"x" * 300_000)).body == b"x" * 300_000


@check("B2", "a chunked body arrives whole", "RFC 9112, 7.1")
def _b2(server: Server) -> bool:
    head = request("/echo", "Transfer-Encoding: chunked", method="POST")
    return server.ask(head + b"3\r\none\r\n3;a=b\r\ntwo\r\n0\r\n\r\n").body == b"onetwo"


@check("B4", "100 Continue is sent when the application asks for the body", "RFC 9110, 10.1.1")
def _b4(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/echo", "Expect: 100-continue", "Content-Length: 2", method="POST"))
        if b" 100" not in reader.readline():
            return False
        reader.readline()
        client.sendall(b"ok")
        return read(reader).body == b"ok"


@check("B5", "an answer without reading an expected body sends no 100", "RFC 9110, 10.1.1")
def _b5(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/now", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        return b" 200" in reader.readline()


@check("R1", "parts without a length are sent chunked", "RFC 9112, 7.1")
def _r1(server: Server) -> bool:
    answer = server.get("/parts")
    return answer.whole and answer.body == b"onetwo" and answer.all("transfer-encoding") == ["chunked"]


_gives("R2", "repeated response fields are kept", HTTP, lambda s: s.get("/cookies").all("set-cookie") == ["a=1", "b=2"])
_gives("R6", "bytes beyond Content-Length do not reach the wire", "RFC 9112, 6.3",
       lambda s: b"HTTP/1.1 200 OK\r\n\r\n" not in s.get("/wrong/long").body and _no_more(s, "/wrong/long"))  # fmt: skip  # noqa: E501
_gives("R13", "never both Transfer-Encoding and Content-Length", "RFC 9112, 6.2",
       lambda s: not (lambda a: a.all("content-length") and a.all("transfer-encoding"))(s.get("/wrong/both")))  # fmt: skip  # noqa: E501
_gives(
    "R14",
    "no field of the application splits the head",
    "RFC 9110, 5.5",
    lambda s: not s.get("/wrong/split").all("x-c"),
)


def _no_more(server: Server, path: str) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request(path, "Connection: close"))
        return reader.read().count(b"HTTP/1.1 ") == 1


@check("R7", "a body shorter than Content-Length is a 500 or ends the connection", "RFC 9112, 6.3")
def _r7(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/wrong/short"))
        answer = read(reader)
        return answer.status == 500 or not answer.whole or reader.read() == b""


@check("R9", "HEAD has the head of GET and no body", "RFC 9110, 9.3.2")
def _r9(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/now", method="HEAD") + request("/now"))
        return read(reader, head=True).all("content-length") == ["3"] and read(reader).body == b"now"


@check("R10", "204 with a body leaves the connection's next answer intact or ends it", "RFC 9110, 15.3.5")
def _r10(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/wrong/204") + request("/now"))
        read(reader)
        rest = reader.peek(1)
        return rest == b"" or read(reader).body == b"now"


@check("K1", "requests sent at once are answered in order", "RFC 9112, 9.3.2")
def _k1(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/now") + request("/echo", method="POST", body=b"two") + request("/now"))
        return [read(reader).body for _ in range(3)] == [b"now", b"two", b"now"]


@check("K3", "Connection: close ends the connection", "RFC 9112, 9.6")
def _k3(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/now", "Connection: close"))
        return read(reader).body == b"now" and reader.read() == b""


@check("D1", "a client that leaves is told by http.disconnect")
def _d1(server: Server) -> bool:
    with server.connect() as client:
        client.sendall(request("/wait"))
        time.sleep(0.3)
    return server.seen("http", "http.disconnect")


def _fails(path: str) -> Callable[[Server], bool]:
    return lambda server: server.get(path).status == 500 and _alive(server)


for _id, _path in (("Z3", "/raise"), ("Z1", "/exit"), ("Z2", "/cancel"), ("Z4", "/silent")):
    _gives(_id, f"500 for an application that ends by {_path[1:]}, and the server lives", HTTP, _fails(_path))
_gives("Z5", "a response that raises half-way does not end as if it were whole", "RFC 9112, 8",
       lambda s: not s.get("/wrong/late").whole and _alive(s))  # fmt: skip

_LINE = b"GET /now HTTP/1.1\r\n"
for _id, _says, _head in (
    ("H1", "Transfer-Encoding with Content-Length", _LINE + b"Host: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),  # noqa: E501
    ("H2", "no Host", _LINE + b"\r\n"),
    ("H7", "two Hosts", _LINE + b"Host: a\r\nHost: b\r\n\r\n"),
    ("H3", "a folded field", _LINE + b"Host: t\r\nX-A: b\r\n c\r\n\r\n"),
    ("H8", "space before the colon", _LINE + b"Host: t\r\nX-A : b\r\n\r\n"),
    ("H9", "two lengths that differ", _LINE + b"Host: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("H10", "a length with a sign", _LINE + b"Host: t\r\nContent-Length: +1\r\n\r\na"),
    ("H11", "NUL in a value", _LINE + b"Host: t\r\nX-A: b\0c\r\n\r\n"),
):  # fmt: skip
    _gives(_id, f"refused: {_says}", "RFC 9112, 2-6", _refused(_head))

_UPGRADE = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip  # noqa: E501
_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def frame(opcode: int, data: bytes = b"") -> bytes:
    """A whole frame of fewer than 126 bytes, masked by zeros."""
    return bytes([0x80 | opcode, 0x80 | len(data)]) + bytes(4) + data


def _after(path: str, sent: bytes, expected: bytes) -> Callable[[Server], bool]:
    def holds(server: Server) -> bool:
        with server.connect() as client, client.makefile("rb") as reader:
            client.sendall(request(path, *_UPGRADE))
            if read(reader).status != 101:
                return False
            client.sendall(sent)
            return bool(reader.read(len(expected)) == expected)

    return holds


@check("W23", "a frame in the handshake's segment is kept", "RFC 6455, 4.1")
def _w23(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/ws", *_UPGRADE) + frame(1, b"early"))
        return read(reader).status == 101 and reader.read(7) == b"\x81\x05early"


@check("W1", "the scope of a WebSocket has its keys")
def _w1(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/ws/scope", *_UPGRADE, "Sec-WebSocket-Protocol: a, b"))
        read(reader)
        head = reader.read(4)
        scope = json.loads(reader.read(int.from_bytes(head[2:4], "big")))
        return bool(scope["scheme"] == "ws" and scope["subprotocols"] == ["a", "b"] and scope["type"] == "websocket")


_gives(
    "W3",
    "Sec-WebSocket-Accept is the key's",
    "RFC 6455, 4.2.2",
    lambda s: s.get("/ws", *_UPGRADE).all("sec-websocket-accept") == [_ACCEPT],
)
_gives(
    "W4",
    "the chosen subprotocol is told",
    "RFC 6455, 4.2.2",
    lambda s: s.get("/ws", *_UPGRADE, "Sec-WebSocket-Protocol: a, b").all("sec-websocket-protocol") == ["b"],
)
_gives("W5", "close before accept is 403", HTTP, lambda s: s.get("/ws/refuse", *_UPGRADE).status == 403)
_gives(
    "W25",
    "an unknown version is answered with 426 or 400",
    "RFC 6455, 4.4",
    lambda s: s.get("/ws", *_UPGRADE[:2], "Sec-WebSocket-Version: 7", _UPGRADE[3]).status in (400, 426),
)
for _id, _says, _path, _sent, _back in (
    ("W26", "text is echoed", "/ws", frame(1, b"hello"), b"\x81\x05hello"),
    ("W27", "bytes are echoed", "/ws", frame(2, b"\0\xff"), b"\x82\x02\0\xff"),
    ("W28", "a ping is answered with its data", "/ws", frame(9, b"p"), b"\x8a\x01p"),
    ("W29", "a close is answered with its code", "/ws", frame(8, b"\x03\xe8"), b"\x88\x02\x03\xe8"),
    ("W30", "text that is no UTF-8 is closed with 1007", "/ws", frame(1, b"\xff"), b"\x88"),
    ("W31", "a reserved opcode is closed", "/ws", frame(3), b"\x88"),
    ("W32", "the application's code and reason are sent", "/ws/close", b"", b"\x88\x08\x0f\xa1enough"),
    ("W33", "an exception is closed with 1011", "/ws/raise", b"", b"\x88\x02\x03\xf3"),
):  # fmt: skip
    _gives(_id, _says, "RFC 6455, 5-7", _after(_path, _sent, _back))


@check("W34", "a client that is cut is told to the application as 1006", "RFC 6455, 7.1.5")
def _w34(server: Server) -> bool:
    with server.connect() as client, client.makefile("rb") as reader:
        client.sendall(request("/ws", *_UPGRADE))
        read(reader)
    return server.seen("ws", "1006")
