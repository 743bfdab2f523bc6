"""Claims about frames: what is read and refused, in whichever pieces it comes, and what is written."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from srvd.http.ws.extensions import Agreement
from srvd.http.ws.frames import COMPRESSED, Opcode, write_frame
from srvd.http.ws.limits import Limits
from srvd.http.ws.reader import Closed, Event, Pong
from tests.support.websocket_feed import BINARY, CLOSE, MORE, PING, PONG, TEXT, compressed, frame, one_by_one, read

HELLO = frame(TEXT, b"Hello")

GOOD: list[tuple[str, bytes, Sequence[Event]]] = [
    # RFC 6455 section 5.7; the examples without a mask are a server's.
    ("a masked text", bytes.fromhex("818537fa213d7f9f4d5158"), ["Hello"]),
    ("a masked pong", bytes.fromhex("8a8537fa213d7f9f4d5158"), [Pong(b"Hello")]),
    ("an empty text", frame(TEXT), [""]),
    ("an empty binary", frame(BINARY), [b""]),
    ("125 bytes", frame(BINARY, b"x" * 125), [b"x" * 125]),
    ("126 bytes", frame(BINARY, b"x" * 126), [b"x" * 126]),
    ("65,535 bytes", frame(BINARY, b"x" * 65_535), [b"x" * 65_535]),
    ("65,536 bytes", frame(BINARY, b"x" * 65_536), [b"x" * 65_536]),
    ("text of all lengths", frame(TEXT, "κόσμε𐍈".encode()), ["κόσμε𐍈"]),
    ("long text", frame(TEXT, "ä".encode() * 500), ["ä" * 500]),
    ("many messages", HELLO * 3 + frame(BINARY, b"\x00"), ["Hello"] * 3 + [b"\x00"]),
    ("fragments", frame(TEXT, b"Hel", final=False) + frame(MORE, b"lo"), ["Hello"]),
    ("empty fragments", frame(TEXT, final=False) + frame(MORE, b"Hello", final=False) + frame(MORE), ["Hello"]),
    ("a character in two fragments", frame(TEXT, b"\xf0\x9f", final=False) + frame(MORE, b"\x98\x80"), ["😀"]),
    ("a pong between fragments", frame(BINARY, b"a", final=False) + frame(PONG, b"!") + frame(MORE, b"b"),
     [Pong(b"!"), b"ab"]),
    ("a message after fragments", frame(BINARY, b"a", final=False) + frame(MORE, b"b") + HELLO, [b"ab", "Hello"]),
    ("a close", frame(CLOSE, b"\x03\xe8bye"), [Closed(1000, "bye")]),
    ("a close without a code", frame(CLOSE), [Closed(1005, "")]),
    ("a close between fragments", frame(BINARY, b"a", final=False) + frame(CLOSE, b"\x03\xe9"), [Closed(1001, "")]),
    ("an application's code", frame(CLOSE, b"\x13\x87\xc3\xa4"), [Closed(4999, "ä")]),
    ("what comes after a close", HELLO + frame(CLOSE) + HELLO + b"\xff\xff", ["Hello", Closed(1005, "")]),
]  # fmt: skip

REFUSED: list[tuple[str, bytes, int]] = [
    ("no mask", b"\x81\x05Hello", 1002),
    ("RSV1 without an agreement", frame(TEXT, b"a", bits=0x40), 1002),
    ("RSV2", frame(TEXT, b"a", bits=0x20), 1002),
    ("RSV3", frame(PING, b"a", bits=0x10), 1002),
    ("RSV1 of a control frame", frame(PING, b"a", bits=0x40), 1002),
    *[(f"opcode {kind}", frame(kind), 1002) for kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
    ("a ping in fragments", frame(PING, b"a", final=False), 1002),
    ("a ping of 126 bytes", frame(PING, b"a" * 126), 1002),
    ("a close of 126 bytes", frame(CLOSE, b"\x03\xe8" + b"a" * 124), 1002),
    ("a length in two bytes that needs one", b"\x82\xfe\x00\x7d" + bytes(4 + 125), 1002),
    ("a length in eight bytes that needs two", b"\x82\xff" + (65_535).to_bytes(8, "big") + bytes(4), 1002),
    ("a length of 64 bits", b"\x82\xff\x80" + bytes(7) + bytes(4), 1002),
    ("a length of 64 bits, and much after it", b"\x82\xff\x80" + bytes(40_000), 1002),
    ("a continuation of nothing", frame(MORE, b"a"), 1002),
    ("a text within a text", frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), 1002),
    ("a binary within a text", frame(TEXT, b"a", final=False) + frame(BINARY, b"b", final=False), 1002),
    ("no UTF-8", frame(TEXT, b"a\xff"), 1007),
    ("no UTF-8, long", frame(TEXT, b"a" * 200 + b"\xff"), 1007),
    ("half a character", frame(TEXT, b"a\xc3"), 1007),
    ("half a character in fragments", frame(TEXT, b"a", final=False) + frame(MORE, b"\xc3"), 1007),
    ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
    ("an overlong slash", frame(TEXT, b"\xc0\xaf"), 1007),
    ("beyond Unicode", frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    ("a close of one byte", frame(CLOSE, b"\x03"), 1002),
    ("a reason that is no UTF-8", frame(CLOSE, b"\x03\xe8\xff"), 1007),
    *[(f"close code {code}", frame(CLOSE, code.to_bytes(2, "big")), 1002)
      for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535)],
]  # fmt: skip


@pytest.mark.parametrize(("data", "events"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_good_streams_are_read_whole_byte_by_byte_and_behind_others(data: bytes, events: Sequence[Event]) -> None:
    assert read([data]).events == events
    assert read(one_by_one(data)).events == events
    assert read([HELLO + data[:1], data[1:]]).events == ["Hello", *events]


@pytest.mark.parametrize(("data", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_bad_frames_are_refused_after_the_messages_before_them(data: bytes, code: int) -> None:
    for pieces in ([data], one_by_one(data), [HELLO + data + HELLO]):
        reading = read(pieces)
        assert reading.closed.code == code
        assert reading.closed.violation
        assert reading.events[:-1] == (["Hello"] if len(pieces[0]) > len(data) else [])


def test_a_message_ends_once() -> None:
    ended = frame(TEXT, b"a", final=False) + frame(MORE, b"b")
    reading = read([ended + frame(MORE, b"c")])
    assert (reading.events[0], reading.closed.code) == ("ab", 1002)


@pytest.mark.parametrize(
    ("data", "enough"),
    [
        (b"\x83\x80", 2),  # an unknown opcode
        (b"\x81\x05Hello", 2),  # no mask
        (b"\x89\xfe\x01\x00", 2),  # a long ping
        (b"\x82\xff\x80" + bytes(7), 10),  # a length of 64 bits
        (frame(TEXT, b"ab\xffcd", mask=bytes(4)), 9),  # no UTF-8, in the middle of a frame
        (frame(TEXT, b"\xed\xa0\x80", mask=bytes(4)), 9),  # a surrogate: CPython wants to see all of it
        (frame(TEXT, b"\xf4\x90\x80\x80", mask=bytes(4)), 8),
    ],
)
def test_what_is_wrong_is_refused_with_the_byte_that_shows_it(data: bytes, enough: int) -> None:
    assert read(one_by_one(data[: enough - 1])).events == []
    assert read(one_by_one(data[:enough])).closed.violation


def test_a_message_over_the_limit_is_refused_by_its_header() -> None:
    limits = Limits(message=10)
    assert read([frame(TEXT, b"a" * 10)], limits).events == ["a" * 10]
    for data in (frame(TEXT, b"a" * 11), frame(BINARY, b"a" * 70_000)):
        head = data[: 6 if len(data) < 100 else 14]
        assert read([head], limits).closed.code == 1009
        assert read([data], limits).closed.code == 1009
    parts = frame(TEXT, b"a" * 5, final=False) + frame(MORE, b"a" * 5, final=False)
    assert read([parts + frame(MORE)], limits).events == ["a" * 10]
    assert read([parts + frame(MORE, b"a")[:6]], limits).closed.code == 1009


def test_fragments_are_bounded_by_their_number_and_many_small_ones_are_not_refused() -> None:
    limits = Limits(fragments=10)
    empty = frame(BINARY, final=False) + frame(MORE, final=False) * 9
    assert read([empty], limits).events == []
    assert read([empty + frame(MORE, final=False)], limits).closed.code == 1008
    small = frame(BINARY, b"a" * 32, final=False) + frame(MORE, b"a" * 32, final=False) * 1000 + frame(MORE)
    assert read([small], limits).events == [b"a" * 32 * 1001]


def test_pings_are_answered_in_order_and_the_newest_when_they_are_too_many() -> None:
    def pongs(*payloads: bytes) -> bytes:
        return b"".join(write_frame(Opcode.PONG, payload) for payload in payloads)

    assert read([frame(PING, b"1") + frame(PING) + frame(PING, b"3" * 125)]).pongs == pongs(b"1", b"", b"3" * 125)
    flood = [b"%d" % number for number in range(10_000)]
    reading = read([b"".join(frame(PING, payload) for payload in flood)], Limits(pongs=4))
    assert reading.events == []
    assert reading.pongs == pongs(*flood[-4:])


def test_a_ping_between_fragments_is_answered_before_the_message_is_whole() -> None:
    reading = read([frame(TEXT, b"a", final=False) + frame(PING, b"p")])
    assert reading == ([], write_frame(Opcode.PONG, b"p"))


def test_a_compressed_frame_may_not_be_a_continuation() -> None:
    data = compressed(TEXT, b"a").replace(b"\xc1", b"\x41", 1) + frame(MORE, b"", bits=COMPRESSED)
    assert read([data], agreement=Agreement()).closed.code == 1002


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_a_written_frame_is_final_unmasked_and_says_its_length_in_few_bytes(size: int) -> None:
    data = write_frame(Opcode.BINARY, b"x" * size)
    head = {0: 2, 1: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[size]
    assert data == data[:head] + b"x" * size
    assert data[0] == 0x82
    assert data[1] == {2: size, 4: 126, 10: 127}[head]
    assert int.from_bytes(data[2:head], "big") == (size if head > 2 else 0)
