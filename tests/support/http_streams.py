"""Streams of requests for fuzzing: good ones written at random, then mutated. The same seed gives the same streams.

Knows nothing of what a stream should come to.
"""

from __future__ import annotations

import random
from collections.abc import Callable

METHODS = [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH", b"QUERY"]
ODD_METHODS = [
    b"FOO",
    b"get",
    b"CONNECT",
    b"PRI",
    b"M-SEARCH",
    b"PLAY",
    b"G\x7fT",
    b"version-control",
    b"BAN",
    b"!#$%&'*+-.^_`|~",
]
TARGETS = [b"/", b"/a?b=c", b"/%2e%zz", b"//evil/x", b"/" + b"x" * 300, b"http://a/x?y", b"*", b"/;p=1", b'/"<>']
ODD_TARGETS = [b"a", b"/a#b", b"https://a/", b"http:///", b"http://me@a/", b"/\xe9", b"a:80", b"?", b"http://[::1]:8/"]
HOSTS = [b"a", b"a.example:80", b"127.0.0.1:8000", b"[::1]", b"[::1]:80", b"a%20b", b"a:", b"[::]", b"[::ffff:1.2.3.4]"]
ODD_HOSTS = [
    b"",
    b"a, b",
    b"a/b",
    b"me@a",
    b"a b",
    b"a:b",
    b"a:99999",
    b"[::1",
    b"\xe9",
    b"[:1]",
    b"[::1.2.3.256]",
    b"a\tb",
    b"[v1.x]",
    b":80",
]
FIELDS = [
    b"X: y", b"X:y", b"X: \t y \t ", b"X:", b"x: \xe9\xff", b"Cookie: a=1", b"Cookie: b=2", b"X_Y: z", b"Proxy: z",
    b"Connection: keep-alive", b"Connection: close", b"Connection: a, Close ,b", b"Connection: upgrade",
    b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"Content-Type: a/b", b"X|~!: 1", b"TE: trailers",
    b"Proxy-Connection: close", b"Keep-Alive: 5", b"X: " + b"y" * 200, b"Trailer: X",
]  # fmt: skip
ODD_FIELDS = [
    b"X : y", b" X: y", b"X", b": y", b"X: a\rb", b"X: a\0b", b"X: a\x01b", b"X: a\x7fb", b"X: a\r\n b", b"X(: y",
    b"\xe9: y", b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +5", b"Content-Length: 5, 5",
    b"Content-Length:", b"Content-Length: 0x5", b"Content-Length: 05", b"Content-Length: 5_0", b"Content-Length: \xb2",
    b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: CHUNKED ",
    b"Transfer-Encoding: chunked\t", b"Transfer-Encoding: \t chunked \t ", b"Host:", b"X:\r\n \t", b"X:\t\r\n\t",
    b"Transfer-Encoding: \x0bchunked", b"transfer-encoding:\tchunked", b"Transfer_Encoding: chunked", b"Host: b",
    b"Expect: 200-ok", b"Content-Type: c/d", b"X: \x0b", b"X: \x85", b"X: \xa0y", b"Content_Length: 3",
]  # fmt: skip
EXTENSIONS = [b"", b"", b"", b";a", b";a=b", b';a="b c"', b"; a = b"]
ODD_EXTENSIONS = [b" ", b"\t;a", b";a\rb", b";a\0", b";\x7f", b"g", b"_0", b";a\nb"]
TRAILERS = [b"X-Sum: 1", b"X: \xe9", b"Content-Type: a/b"]
ODD_TRAILERS = [b"X : 1", b"X", b" X: 1", b"Host: b", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: a\x01"]
TOKENS = [
    b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\0", b" ", b"\t", b"\x0b", b"\x85", b"\xff", b":", b";",
    b",", b"0", b"5", b"f", b"0\r\n\r\n", b"5\r\nhello\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b" HTTP/1.1",
    b"HTTP/1.0", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Host: a\r\n",
    b"\r\n ", b"-", b"_", b"+", b"#", b"%", b"@", b"[", b"]",
]  # fmt: skip


def stream(seed: str) -> bytes:
    """Requests one after another, and most of the time something wrong with them."""
    chance = random.Random(seed)
    data = b"".join(_request(chance) for _ in range(chance.choice((1, 1, 2, 2, 3, 4))))
    for _ in range(chance.choice((0, 0, 1, 1, 1, 2, 3))):
        data = chance.choice(_MUTATIONS)(chance, data)
    return data


def cuts(seed: str, data: bytes) -> list[bytes]:
    """The stream in pieces: single bytes, or of random sizes."""
    chance = random.Random(seed)
    if chance.random() < 0.2:
        return [data[at : at + 1] for at in range(len(data))]
    edges = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(8)))
    return [data[start:end] for start, end in zip([0, *edges], [*edges, len(data)], strict=True)]


def _pick(chance: random.Random, usual: list[bytes], odd: list[bytes], share: float = 0.025) -> bytes:
    return chance.choice(odd if chance.random() < share else usual)


def _request(chance: random.Random) -> bytes:
    method = _pick(chance, METHODS, ODD_METHODS)
    target = _pick(chance, TARGETS, ODD_TARGETS)
    if target == b"*" and chance.random() < 0.9:
        method = b"OPTIONS"
    version = (
        chance.choice((b"1.1",) * 9 + (b"1.0",)) if chance.random() < 0.99 else chance.choice((b"2.0", b"1.2", b"0.9"))
    )
    lines = [b"%b %b HTTP/%b" % (method, target, version)]
    if chance.random() < 0.99:
        lines.append(b"Host: " + _pick(chance, HOSTS, ODD_HOSTS))
    lines += [_pick(chance, FIELDS, ODD_FIELDS) for _ in range(chance.choice((0, 1, 1, 2, 3, 5)))]
    body = b""
    framing = chance.random()
    if framing < 0.3:
        body = chance.randbytes(chance.choice((0, 1, 5, 40)))
        lines.append(b"Content-Length: %d" % len(body))
    elif framing < 0.6 and version != b"1.0":
        body = _chunked(chance)
        lines.append(b"Transfer-Encoding: chunked")
    elif 0.6 <= framing < 0.604:
        lines += [b"X%d: y" % number for number in range(101)]
    if chance.random() < 0.5:
        lines[1:] = chance.sample(lines[1:], len(lines) - 1)
    return chance.choice((b"",) * 20 + (b"\r\n",)) + b"\r\n".join(lines) + b"\r\n\r\n" + body


def _chunked(chance: random.Random) -> bytes:
    parts = []
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        data = chance.choice((b"x", b"hello", b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", chance.randbytes(30)))
        size = (
            chance.choice((b"%x", b"%X", b"0%x", b"%016x"))
            if chance.random() < 0.98
            else chance.choice((b"%017x", b" %x", b"+%x", b"0x%x"))
        )
        parts.append(size % len(data) + _pick(chance, EXTENSIONS, ODD_EXTENSIONS) + b"\r\n" + data + b"\r\n")
    parts.append(chance.choice((b"0", b"0", b"000", b"0;a")) + b"\r\n")
    parts += [_pick(chance, TRAILERS, ODD_TRAILERS) + b"\r\n" for _ in range(chance.choice((0, 0, 0, 1, 2)))]
    return b"".join(parts) + b"\r\n"


# -- mutations ----------------------------------------------------------------------------------------------------


def _span(chance: random.Random, data: bytes) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(start + chance.choice((1, 1, 2, 4, 16, 64)), len(data))


def _flip(chance: random.Random, data: bytes) -> bytes:
    start, end = _span(chance, data)
    return (
        data[:start] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[start : start + 1]) + data[start + 1 :]
        if end
        else data
    )


def _insert(chance: random.Random, data: bytes) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(TOKENS) + data[at:]


def _insert_at_a_line(chance: random.Random, data: bytes) -> bytes:
    ends = [at for at in range(len(data)) if data[at : at + 2] == b"\r\n"] or [0]
    at = chance.choice(ends) + chance.choice((0, 0, 1, 2, 2))
    return data[:at] + chance.choice(TOKENS) + data[at:]


def _overwrite(chance: random.Random, data: bytes) -> bytes:
    start, _ = _span(chance, data)
    token = chance.choice(TOKENS)
    return data[:start] + token + data[start + len(token) :]


def _delete(chance: random.Random, data: bytes) -> bytes:
    start, end = _span(chance, data)
    return data[:start] + data[end:]


def _double(chance: random.Random, data: bytes) -> bytes:
    start, end = _span(chance, data)
    return data[:end] + data[start:end] + data[end:]


def _double_a_line(chance: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(chance.randrange(len(lines)), chance.choice(lines))
    return b"\r\n".join(lines)


def _swap_lines(chance: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\r\n".join(lines)


def _bare_an_end(chance: random.Random, data: bytes) -> bytes:
    """A CR LF loses its CR, or its LF."""
    ends = [at for at in range(len(data)) if data[at : at + 2] == b"\r\n"] or [0]
    at = chance.choice(ends) + chance.randrange(2)
    return data[:at] + data[at + 1 :]


def _change_a_digit(chance: random.Random, data: bytes) -> bytes:
    digits = [at for at, byte in enumerate(data) if 48 <= byte < 58] or [0]
    at = chance.choice(digits)
    return data[:at] + b"%d" % chance.randrange(10) + data[at + 1 :]


def _truncate(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _flip, _insert, _insert_at_a_line, _overwrite, _delete, _double, _double_a_line, _swap_lines, _bare_an_end,
    _change_a_digit, _truncate,
)  # fmt: skip
