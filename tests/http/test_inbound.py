"""One connection's reading side: where requests begin and end, whatever the cuts, whatever was before."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srvd.http.h1 import guard
from srvd.http.h1.limits import Limits
from srvd.http.h1.reader import Inbound
from srvd.http.h1.refusal import Refusal
from tests.http.test_guard import ACCEPTED, REFUSED
from tests.support.http_feed import TEMPLATE, feed, reader, request, whole

STREAM = (
    request(line="GET /1 HTTP/1.1")
    + request("Content-Length: 5", line="POST /2 HTTP/1.1", body=b"hello")
    + b"\r\n"
    + request("Transfer-Encoding: chunked", line="PUT /3 HTTP/1.1", body=b"3\r\nabc\r\n0\r\nX: y\r\n\r\n")
    + request("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 4", line="POST /4 HTTP/1.1", body=b"GET ")
    + request("Connection: upgrade", "Upgrade: websocket", line="GET /5 HTTP/1.1")
    + request("Proxy-Connection: close", line="GET /6 HTTP/1.1")
    + request("Connection: close", line="GET /7 HTTP/1.1")
    + request(line="GET /never HTTP/1.1")
)
LABELS = ["GET /1", "POST /2", "PUT /3", "POST /4", "GET /5", "GET /6", "GET /7"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
@settings(max_examples=300, deadline=None)
def test_how_a_stream_is_cut_up_changes_nothing(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    outcome = feed(STREAM[start:end] for start, end in pairwise(edges))
    assert [message.label for message in outcome.messages] == LABELS
    assert [message.body for message in outcome.messages] == [b"", b"hello", b"abc", b"GET ", b"", b"", b""]
    assert outcome.refused == 0


def test_one_reader_of_heads_serves_many_connections_whatever_they_do_to_it() -> None:
    """The parser is shared: no connection may leave it in a state that another one sees."""
    heads = reader()
    good = request(line="GET /good HTTP/1.1")
    for _, data, status in REFUSED:
        assert feed([data], heads=heads).refused == status
        assert [message.label for message in feed([good], heads=heads).messages] == ["GET /good"]
    for _, data, label in ACCEPTED:
        assert [message.label for message in feed([data], heads=heads).messages] == [label]
        assert [message.label for message in feed([good], heads=heads).messages] == ["GET /good"]


def test_what_is_remembered_is_not_shared_between_requests() -> None:
    heads = reader()
    for _ in range(3):
        message = feed([request("X: 1", "Content-Length: 2") + b"ab"], heads=heads).messages[0]
        assert (message.environ.pop("HTTP_X"), message.body) == ("1", b"ab")
        message.environ["PATH_INFO"] = message.environ["HTTP_HOST"] = "changed"
    assert feed([request("X: 1")], heads=heads).messages[0].environ["HTTP_HOST"] == "a"


def test_a_section_that_was_good_is_judged_again_after_another_kind_of_line() -> None:
    heads = reader()
    chunked = b"\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    plain = b"\r\nHost: a\r\n\r\n"
    for _ in range(2):
        for line, rest, status in (
            (b"POST / HTTP/1.1", chunked, 0),
            (b"POST / HTTP/1.0", chunked, 400),
            (b"GET / HTTP/1.1", plain, 0),
            (b"BREW / HTTP/1.1", plain, 0),
            (b"GET https://a/ HTTP/1.1", plain, 421),
            (b"GET / HTTP/1.1", b"\r\n\r\n", 400),
            (b"GET / HTTP/1.0", b"\r\n\r\n", 0),
        ):
            assert feed([line + rest], heads=heads).refused == status, line


def test_only_so_many_short_heads_are_remembered() -> None:
    heads = reader()
    for number in range(3_000):
        line = f"GET /{number}{'x' * (number % 500)} HTTP/1.{number % 2}"
        data = request(f"X: {'y' * (number * 7 % 4_000)}{number}", line=line, host=f"h{number}")
        for _ in range(2):  # what comes once is not remembered
            assert len(feed([data], heads=heads).messages) == 1
        assert len(heads._marks._marks) <= 2_048
        assert len(heads._lines) <= 512
        assert len(heads._hosts) <= 64
        assert all(len(sections) <= 256 for sections in heads._sections)
    assert 200 < max(map(len, heads._lines)) <= 256
    assert 1_000 < max(len(text) for sections in heads._sections for text in sections) <= 2_048


@pytest.mark.parametrize("method", ["GET", "BAN", "version-control"])
def test_a_target_has_the_characters_of_a_uri_whatever_the_method(method: str) -> None:
    taken = [chr(code) for code in range(256) if _is_taken(f"{method} /a{chr(code)}b?c{chr(code)} HTTP/1.1")]
    assert taken == [chr(code) for code in range(0x21, 0x7F) if code != ord("#")]


def _is_taken(line: str) -> bool:
    try:
        guard.request_line(line.encode("latin-1"), Limits())
    except Refusal:
        return False
    return True


def test_the_template_is_copied_for_every_request() -> None:
    inbound = Inbound(reader(), TEMPLATE)
    first = inbound.receive(request("X: 1"))
    assert first is not None
    first.scope["SCRIPT_NAME"] = first.scope["PATH_INFO"] = "changed"
    second = inbound.receive(request())
    assert second is not None
    assert (second.scope["SCRIPT_NAME"], second.scope["PATH_INFO"]) == ("", "/")
    assert "HTTP_X" not in second.scope
    assert TEMPLATE["SCRIPT_NAME"] == ""


def test_empty_lines_alone_are_not_the_beginning_of_a_request() -> None:
    """RFC 9112 section 2.2: they are ignored, and so they prolong nothing."""
    inbound = Inbound(reader(), TEMPLATE)
    for _ in range(1000):
        assert inbound.receive(b"\r\n\r") is None
        assert not inbound.begun
        assert inbound.receive(b"\n") is None
        assert not inbound.begun
    assert inbound.receive(request()) is not None


def test_an_expectation_is_told_only_if_a_body_will_come() -> None:
    """RFC 9110 section 10.1.1."""
    heads = reader()

    def expects(data: bytes) -> bool:
        found = Inbound(heads, TEMPLATE).receive(data)
        assert found is not None
        return found.expects

    assert expects(request("Expect: 100-continue", "Content-Length: 1"))
    assert expects(request("Expect: 100-Continue", "Transfer-Encoding: chunked"))
    assert not expects(request("Expect: 100-continue", "Content-Length: 0"))
    assert not expects(request("Expect: 100-continue"))
    assert not expects(request("Expect: 100-continue", "Content-Length: 1", line="POST / HTTP/1.0"))


@pytest.mark.parametrize(
    "rest", [b"\r\n\r\n", b"Host: a\r\nExpect: x\r\n\r\n", b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"]
)
def test_rfc9110_9_3_2_it_is_known_that_a_refused_request_is_a_head(rest: bytes) -> None:
    for method in (b"HEAD", b"GET"):
        inbound = Inbound(reader(), TEMPLATE)
        with suppress(Refusal):
            if inbound.receive(method + b" / HTTP/1.1\r\n" + rest):
                inbound.read_body(b"")
            raise AssertionError(rest)
        assert inbound.is_head == (method == b"HEAD")


@pytest.mark.parametrize("begun", [b" / HTTP/1.1\r\nHo", b" /\x00", b" / HTTP/1.1\r\nX: " + b"x" * 70_000])
def test_rfc9110_9_3_2_it_is_known_that_a_head_that_never_ends_is_one(begun: bytes) -> None:
    for method in (b"HEAD", b"GET"):
        inbound = Inbound(reader(), TEMPLATE)
        with suppress(Refusal):
            inbound.receive(method + begun)
        assert inbound.is_head == (method == b"HEAD")


ALPHABET = [
    b"GET ", b"POST ", b"/", b"/x", b"*", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"\r\n", b"\r\n", b"\r\n\r\n",
    b"\n", b"\r", b"Host: a", b"Host: b", b"Content-Length: 3", b"Content-Length: 0", b"Transfer-Encoding: chunked",
    b"Connection: close", b"Upgrade: x", b"Connection: Upgrade", b": ", b" ", b"\t", b"abc", b"0\r\n\r\n",
    b"3\r\nabc\r\n", b"\0", b"\xff",
]  # fmt: skip


@given(st.lists(st.sampled_from(ALPHABET), max_size=30).map(b"".join), st.integers(1, 7))
@settings(max_examples=600, deadline=None)
def test_no_bytes_break_the_core_and_no_cut_changes_its_verdict(data: bytes, size: int) -> None:
    """Only refusals are raised; what was accepted is accepted in any pieces."""
    data = b"GET / HTTP/1.1\r\n" + data if size % 2 else data
    one = whole(data)
    many = feed(data[at : at + size] for at in range(0, len(data), size))
    assert [message[:3] for message in one.messages] == [message[:3] for message in many.messages]
    # A head that can still become a good one may wait in one case for what is refused in the other at its end.
    assert one.refused == many.refused
