"""Claims about the memory of header lines: it changes no judgement, keeps no secret, and has bounds."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from srvd.http.h1.head import HeadReader
from srvd.http.h1.limits import Limits
from srvd.http.h1.lines import UsualLines
from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Ends
from srvd.http.proxies.forwarded import X_FORWARDED, ForwardedReader
from srvd.http.proxies.networks import Networks
from srvd.worker.wsgi.environ import EnvironSink

SINK = EnvironSink("web/1#1", multithread=False)
TEMPLATE = SINK.connection(Ends("10.0.0.1", "50000"))

LINES = [b"GET /a HTTP/1.1"] * 6 + [b"POST /x?y HTTP/1.1", b"HEAD /a HTTP/1.0", b"OPTIONS * HTTP/1.1"]
NAMES = [b"Accept", b"User-Agent", b"X-B", b"Referer", b"Origin", b"Via", b"Sec-Fetch-Mode", b"X-Request-Id"] * 5 + [
    b"Host", b"host", b"HOST", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Expect",
    b"Cookie", b"cookie", b"accept", b"x-b", b"X_B", b"Upgrade", b"Content-Type", b"content-type", b"Proxy", b"",
    b"Na me", b"X-\x00", b"X-\xe9", b"Trailer", b"TE", b"Keep-Alive", b"Proxy-Connection", b"X-Forwarded-For",
    b"X-Forwarded-Proto", b"X-Real-IP",
]  # fmt: skip
VALUES = [b"a", b"x; y=1", b"a b\t c", b"1.2.3.4", b"https", b"localhost", b"example.com:80"] * 5 + [
    b"", b" ", b"\t", b"5", b"5 ", b"0", b"007", b"chunked", b"chunked\t", b"gzip, chunked", b"identity", b"close",
    b"Close\t", b"keep-alive", b"upgrade", b"Upgrade, close", b"websocket", b"100-continue", b"a\xff", b"\x0b",
    b"a\x0bb", b"a\x0c", b"b\x01", b"a\x7f", b"v\rw", b"v\nw", b"1" * 18, b"1" * 19, b"+5", b"5, 5", b"a\x00", b"\xa0",
]  # fmt: skip
COLONS = [b": "] * 14 + [b":", b":\t", b" : ", b":  ", b"", b" "]
ENDS = [b"\r\n"] * 60 + [b" \r\n", b"\t\r\n"] * 4 + [b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\r\r\n"]


def head(dice: Random) -> bytes:
    """One head, good or bad, up to its first empty line."""
    parts = [dice.choice(LINES), b"\r\n", b"Host: localhost\r\n" if dice.random() < 0.8 else b""]
    for _ in range(dice.choice((0, 1, 1, 2, 2, 3, 4, 6, 14))):
        parts += [dice.choice(NAMES), dice.choice(COLONS), dice.choice(VALUES), dice.choice(ENDS)]
    whole = b"".join(parts)
    if dice.random() < 0.05:
        at = dice.randrange(len(whole))
        whole = whole[:at] + bytes([dice.randrange(256)]) + whole[at + 1 :]
    whole = whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    return whole if b"\r\n" in whole[:-4] else b"GET / HTTP/1.0\r\n\r\n"


def judgement(reader: HeadReader, data: bytes) -> object:
    try:
        request = reader.read(data, TEMPLATE)
    except Refusal as refusal:
        return refusal.status, refusal.why
    return list(request.scope.items()), request.length, request.keep_alive, request.expects, request.line


class LlhttpOnly(UsualLines):
    def read(self, text: bytes) -> None:
        return None


def plain(limits: Limits) -> HeadReader:
    return HeadReader(limits, SINK)


def behind_a_proxy(limits: Limits) -> HeadReader:
    return ForwardedReader(limits, SINK, X_FORWARDED, Networks(["10.0.0.0/8"]), trusted=True)


def before_strangers(limits: Limits) -> HeadReader:
    return ForwardedReader(limits, SINK, X_FORWARDED, Networks(["10.0.0.0/8"]), trusted=False)


@pytest.mark.parametrize("make", [plain, behind_a_proxy, before_strangers])
@pytest.mark.parametrize("underscores", [True, False])
def test_a_section_is_judged_as_if_llhttp_had_read_it(make: Callable[[Limits], HeadReader], underscores: bool) -> None:
    limits = Limits(fields=8, underscores=underscores)
    remembers, asks = make(limits), make(limits)
    asks._usual = LlhttpOnly(SINK)
    dice = Random(f"{make.__name__} {underscores}")
    accepted = 0
    for _ in range(3_000):
        data = head(dice)
        found = judgement(remembers, data)
        assert found == judgement(asks, data), data
        accepted += not isinstance(found[0], int) if isinstance(found, tuple) else 0
    assert accepted > 600
    assert len(remembers._usual) > 50


@pytest.mark.parametrize("name", ["Cookie", "COOKIE", "Authorization", "Proxy-Authorization", "Referer", "X-Api-Key"])
def test_a_line_that_may_hold_a_secret_is_not_remembered(name: str) -> None:
    lines = UsualLines(SINK)
    section = f"\r\nHost: a\r\n{name}: secret\r\n\r\n".encode()
    for _ in range(3):
        fields = lines.read(section)
        assert fields is not None
        assert fields[name.lower().encode()][3] == b"secret"
    assert set(lines) == {b"Host: a"}


@pytest.mark.parametrize(
    "line",
    [
        "Transfer-Encoding: chunked", "Upgrade: h2c", "Proxy-Connection: close", "Connection: close, x", "X_A: 1", "X:",
        "X: \t", "X : 1", " X: 1", "X", ": 1", "X: a\x0bb", "X: a\x7f", "X: a\rb", "X: a\nb", "X: \0",
        "Content-Length: +5", "Content-Length: 5, 5", "Content-Length: " + 19 * "1", "HOST: b", "Na me: 1", "N\xe9: 1",
    ],
)  # fmt: skip
def test_whatever_is_unusual_is_left_to_llhttp(line: str) -> None:
    lines = UsualLines(SINK)
    for _ in range(3):
        assert lines.read(f"\r\nHost: a\r\n{line}\r\n\r\n".encode("latin-1")) is None
    assert lines.read(b"\r\nHost: a\r\nX: 1\r\n\r\n") is not None


def test_only_so_many_short_lines_are_remembered() -> None:
    lines = UsualLines(SINK)
    most = 0
    for number in range(3_000):
        section = f"\r\nX-{number}: {'y' * (number % 400)}{number}\r\n\r\n".encode()
        for _ in range(2):  # what comes once is not remembered
            before = len(lines)
            assert lines.read(section) is not None
        assert len(lines) in (before, before + 1, 1)
        most = max(most, len(lines))
        assert len(lines._names) <= 1_024
        assert all(len(line) <= 256 for line in lines)
    assert 900 < most <= 1_024
