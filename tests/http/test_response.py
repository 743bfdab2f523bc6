"""What an application may answer, and the bytes it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from srvd.http.h1 import response
from srvd.http.h1.date import Stamp, date
from srvd.http.h1.refusal import REASONS, answer
from srvd.http.h1.response import BodyFraming, Framing, ResponseInvalid, check_fields, check_status, open_response

STAMP = b"Server: srvd\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"


def opened(
    status: str = "200 OK",
    headers: list[tuple[str, str]] | None = None,
    *,
    head_only: bool = False,
    minor: int = 1,
    keep_alive: bool = True,
    whole: int = -1,
) -> tuple[list[str], Framing, bool]:
    head, framing, keep = open_response(
        check_status(status), check_fields(headers or []), STAMP, head_only, minor, keep_alive, whole
    )
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].decode("latin-1").split("\r\n"), framing.kind, keep


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "599 x", "200", "200 ", "299 \xe9", "500 tab\there"])
def test_rfc9112_4_a_good_status(status: str) -> None:
    assert check_status(status).code == int(status[:3])
    line = f"HTTP/1.1 {status if len(status) > 3 else status + ' '}\r\n"
    assert check_status(status).line == line.encode("latin-1")


@pytest.mark.parametrize(
    "status",
    ["", "OK", "20 OK", "2000 OK", "200OK", " 200 OK", "200 OK\r\n", "200 O\nK", "200 \0", "100 Continue", "101 x",
     "600 x", "\u0662\u0660\u0660 OK", "200 \u20ac", 200, None, b"200 OK"],
)  # fmt: skip
def test_rfc9112_4_a_bad_status(status: object) -> None:
    with pytest.raises(ResponseInvalid):
        check_status(status)  # type: ignore[arg-type]  # what an application may well do


@pytest.mark.parametrize(
    "header",
    [
        ("", "x"), ("X A", "x"), ("X:", "x"), ("X\r\n", "x"), ("\xe9", "x"), ("X", "a\r\nb"), ("X", "a\nb"),
        ("X", "a\rb"), ("X", "\0"), ("X", 1), (1, "x"), (b"X", "x"), ("X", b"x"), ("X", None), ("X",), ("X", "a", "b"),
        None, "XY Z", ("Content-Length", "-1"),
        ("Content-Length", "1 "), ("Content-Length", ""), ("Content-Length", "\u0661"), ("Content-Length", 5),
        ("Content-Length", "1" * 19),
    ],
)  # fmt: skip
def test_rfc9110_5_a_bad_header(header: object) -> None:
    with pytest.raises(ResponseInvalid):
        check_fields([("X-Good", "1"), header, ("Y-Good", "2")])  # type: ignore[list-item]  # as above


class Text(str):
    """As markupsafe and Django have them: text with a mark. It need not write itself as it is."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return "X\r\nY"

    __str__ = __repr__ = lower = lambda self: "X\r\nY"


def test_text_of_a_subclass_is_text_whether_it_was_seen_before_or_not() -> None:
    for number, text in enumerate((Text, str, Text)):
        assert check_status(text("298 Mine")).line == b"HTTP/1.1 298 Mine\r\n", number
        fields = check_fields([(text("X-Mine"), text("a")), (text("Content-Length"), text("7"))])
        assert (fields.text, fields.length) == (b"X-Mine: a\r\n", 7), number
        with pytest.raises(ResponseInvalid):
            check_fields([(text("X-Mine"), text("a\r\nX-Evil: 1"))])
        fields = check_fields([(text("Connection"), text("a"))])
        assert (fields.text, fields.dropped) == (b"", ("connection",)), number


def test_headers_are_read_each_time_they_are_given() -> None:
    headers = [("X-Count", "1")]
    first = check_fields(headers)
    headers[0] = ("X-Count", "2")
    headers.append(("Content-Length", "3"))
    second = check_fields(headers)
    assert (first.text, first.length) == (b"X-Count: 1\r\n", -1)
    assert (second.text, second.length) == (b"X-Count: 2\r\n", 3)
    headers[0] = ("X-Count", "2\0")
    with pytest.raises(ResponseInvalid):
        check_fields(headers)


def test_pairs_may_be_lists_which_cannot_be_remembered() -> None:
    pair: Any = ["X-Pair", "1"]
    for value in ("1", "2"):
        pair[1] = value
        assert check_fields([pair]).text == f"X-Pair: {value}\r\n".encode()
    pair[1] = "1\n"
    with pytest.raises(ResponseInvalid):
        check_fields([pair])


def test_only_so_many_short_answers_of_applications_are_remembered() -> None:
    for number in range(5_000):
        check_status(f"200 {number}")
        check_fields([(f"X-{number}", "y" * (number % 2_000))])
        assert len(response._fields) <= 256
    assert len(response._statuses) <= 1_024
    assert len(response._kinds) <= 1_024
    assert sum(len(fields.text) for fields in response._fields.values()) <= 256 * 512


def test_rfc9110_8_6_two_lengths_are_refused_unless_they_are_the_same() -> None:
    with pytest.raises(ResponseInvalid, match="twice, as 1 and as 2"):
        check_fields([("Content-Length", "1"), ("content-length", "2")])
    fields = check_fields([("Content-Length", "1"), ("X", "y"), ("content-length", "01")])
    assert (fields.length, fields.text) == (1, b"X: y\r\n")
    assert opened(headers=[("Content-Length", "7"), ("Content-Length", "7")])[0].count("Content-Length: 7") == 1


HOPS = (
    "Connection", "keep-alive", "Transfer-Encoding", "TE", "Upgrade", "Proxy-Authenticate", "Proxy-Authorization",
    "Proxy-Connection", "Trailer", "Trailers",
)  # fmt: skip


@pytest.mark.parametrize("name", HOPS)
def test_rfc9110_7_6_1_what_speaks_of_the_connection_is_dropped_and_named(name: str) -> None:
    for value in ("close", "chunked", "a\r\nb"):  # seen before, or not: it goes nowhere
        fields = check_fields([("X-Good", "1"), (name, value), ("Content-Length", "3"), (name, "again")])
        assert (fields.text, fields.length) == (b"X-Good: 1\r\n", 3)
        assert set(fields.dropped) == {name.lower()}
    assert check_fields([("X-Good", "1")]).dropped == ()


def test_good_headers_are_written_in_their_order_and_spelling() -> None:
    fields = check_fields(
        [("X-One", "1"), ("content-type", "a/b; c"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("X", "")]
    )
    assert fields.text == b"X-One: 1\r\ncontent-type: a/b; c\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX: \r\n"
    assert fields.length == -1


def test_a_known_whole_gets_a_length() -> None:
    lines, framing, keep = opened(whole=5)
    assert lines == ["HTTP/1.1 200 OK", *STAMP.decode().splitlines(), "Content-Length: 5"]
    assert (framing, keep) == (Framing.LENGTH, True)


def test_rfc9112_6_3_framing_by_version() -> None:
    assert opened()[1:] == (Framing.CHUNKED, True)
    assert "Transfer-Encoding: chunked" in opened()[0]
    assert opened(minor=0)[1:] == (Framing.CLOSE, False)
    assert opened(headers=[("Content-Length", "7")])[1:] == (Framing.LENGTH, True)
    assert opened(headers=[("Content-Length", "7")], whole=5)[0][-1] == "Content-Length: 7"


def test_rfc9112_9_3_persistence_is_said_where_it_is_not_the_default() -> None:
    assert opened(whole=1, keep_alive=False)[0][-1] == "Connection: close"
    assert opened(whole=1, minor=0)[0][-1] == "Connection: keep-alive"
    assert opened(minor=0)[0][-1] == "Connection: close"
    assert "Connection" not in "".join(opened(whole=1)[0])


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_rfc9110_6_4_1_no_body_for_204_and_304(status: str) -> None:
    lines, framing, keep = opened(status, whole=5)
    assert (framing, keep) == (Framing.NONE, True)
    assert not any(line.startswith(("Content-Length", "Transfer-Encoding")) for line in lines)


def test_rfc9110_8_6_a_length_for_304_and_head_but_not_for_204() -> None:
    length = [("Content-Length", "9")]
    assert "Content-Length: 9" in opened("304 Not Modified", length)[0]
    assert "Content-Length: 9" not in opened("204 No Content", length)[0]
    assert "Content-Length: 9" in opened(headers=length, head_only=True)[0]


def test_rfc9110_9_3_2_head_says_what_get_would_if_it_is_known() -> None:
    assert "Content-Length: 5" in opened(head_only=True, whole=5)[0]
    for whole in (0, -1):
        lines, framing, _ = opened(head_only=True, whole=whole)
        assert framing is Framing.NONE
        assert not any(line.startswith(("Content-Length", "Transfer-Encoding")) for line in lines)


def test_server_and_date_of_the_application_replace_ours() -> None:
    both = opened(headers=[("SERVER", "x"), ("date", "y")])[0]
    assert [line for line in both if line.lower().startswith(("server", "date"))] == ["SERVER: x", "date: y"]
    assert "Server: srvd" in opened(headers=[("Date", "y")])[0]
    assert STAMP.decode().splitlines()[1] in opened(headers=[("Server", "y")])[0]


def test_a_refusal_closes_and_says_no_more_than_its_status() -> None:
    for status in REASONS:
        head, _, body = answer(status, STAMP).decode().partition("\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status} ")
        length, *wanted, closes = head.split("\r\n")[4:]
        assert length == f"Content-Length: {len(body)}"
        if status == 426:  # it says what the client may upgrade to
            assert wanted == ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
            assert closes == "Connection: Upgrade, close"
        else:
            assert (wanted, closes) == (["Retry-After: 1"] if status == 503 else [], "Connection: close")
    assert answer(400, STAMP, bodiless=True).endswith(b"Connection: close\r\n\r\n")


def test_rfc9110_5_6_7_dates_are_imf_fixdates_in_any_locale() -> None:
    assert date(784_111_777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_a_stamp_holds_until_the_next_second_begins() -> None:
    stamp = Stamp()
    stamp.renew(1000.0, 5.75)
    assert stamp.text == b"Server: srvd\r\nDate: Thu, 01 Jan 1970 00:00:05 GMT\r\n"
    assert stamp.until == 1000.25


def test_rfc9112_7_1_blocks_become_chunks() -> None:
    framing = BodyFraming(Framing.CHUNKED, -1)
    assert framing.block(b"x" * 17) + framing.end() == b"11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"
    assert not framing.is_short


def test_no_more_than_content_length_is_sent() -> None:
    framing = BodyFraming(Framing.LENGTH, 5)
    assert framing.block(b"abc") == b"abc"
    assert framing.left == 2
    assert framing.is_short
    assert framing.block(b"defg") == b"de"
    assert framing.block(b"h") + framing.end() == b""
    assert not framing.is_short


def test_a_response_without_a_body_has_none_whatever_the_application_gives() -> None:
    framing = BodyFraming(Framing.NONE, 5)
    assert framing.block(b"abc") + framing.end() == b""
    assert not framing.is_short


@pytest.mark.parametrize("kind", Framing)
def test_only_a_body_that_ends_with_its_connection_needs_a_reset_when_it_is_cut(kind: Framing) -> None:
    framing = BodyFraming(kind, 5)
    assert not framing.must_reset
    framing.cut = True
    assert framing.must_reset is (kind is Framing.CLOSE)
