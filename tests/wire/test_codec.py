"""Claims about frames: what is one, what is refused, and how little a peer can make the decoder hold."""

from __future__ import annotations

import math
import random
import tracemalloc
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srvd.errors import BadFrame, InternalError
from srvd.wire.codec import DEPTH, PREFIX, REQUESTS, RESPONSES, Decoder, encode

MESSAGE: dict[str, Any] = {
    "type": "req",
    "id": 7,
    "method": "scale",
    "args": {"pool": "wéb", "size": 8, "deep": [1, [2.5, None, True]]},
}


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(PREFIX, "big") + body


def packed(value: object) -> bytes:
    return framed(bytes(msgpack.packb(value)))


def nested(depth: int) -> dict[str, Any]:
    """A map with `depth` maps and lists inside each other, itself included."""
    value: Any = []
    for _ in range(depth - 2):
        value = [value]
    return {"v": value}


def test_a_message_comes_back_as_it_was() -> None:
    assert Decoder().feed(encode(MESSAGE)) == [MESSAGE]


def test_frames_are_found_whole_byte_by_byte_and_back_to_back() -> None:
    stream = encode(MESSAGE) * 3
    bytewise = Decoder()
    found = [message for byte in stream for message in bytewise.feed(bytes([byte]))]
    assert found == Decoder().feed(stream) == [MESSAGE] * 3
    assert bytewise.pending == 0


def test_every_truncation_of_a_frame_is_pending_and_no_message() -> None:
    frame = encode(MESSAGE)
    for length in range(len(frame)):
        decoder = Decoder()
        assert decoder.feed(frame[:length]) == []
        assert decoder.pending == length
        assert decoder.feed(frame[length:]) == [MESSAGE]


def test_every_truncated_body_in_a_whole_frame_is_refused() -> None:
    body = encode(MESSAGE)[PREFIX:]
    for length in range(len(body)):
        with pytest.raises(BadFrame):
            Decoder().feed(framed(body[:length]))


@pytest.mark.parametrize(
    "first", [b"G", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\xff", b"\x00\x01\x00\x01", b"\x01"]
)
def test_wrong_first_bytes_are_refused_before_a_whole_length_came(first: bytes) -> None:
    with pytest.raises(BadFrame, match="limit"):
        Decoder().feed(first)


def test_a_frame_that_opens_no_map_is_refused_at_its_fifth_byte() -> None:
    with pytest.raises(BadFrame, match="no map"):
        Decoder().feed(b"\x00\x00\x10\x00\x93")


def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(BadFrame, match="empty"):
        Decoder().feed(b"\0\0\0\0")


@pytest.mark.parametrize(
    "body",
    [
        b"\x81\xa1a\xdd\xff\xff\xff\xff",  # a list that claims 2³²-1 items
        b"\x81\xa1a\xdf\xff\xff\xff\xff",  # a map that does
        b"\x81\xa1a\xdb\xff\xff\xff\xff",  # a text that does
        b"\x81\xa1a\xc6\xff\xff\xff\xff",  # bytes that do
        b"\x81\xa1a\xd4\x01\x00",  # extension type of one byte
        b"\x81\xa1a\xc7\x00\x01",  # extension type of no bytes
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x81\xa1a\xc4\x01\x00",  # bytes
        b"\x81\xa1a\xc1",  # never used
        b"\x81\xa1a\xa1\xff",  # text that is no UTF-8
        b"\x81\xa1a\xa3\xed\xa0\x80",  # a surrogate
        b"\x81\x01\x02",  # a key that is no text
        b"\x81\xc4\x01a\x02",  # a key of bytes
        b"\x81\x91\x01\x02",  # a key that is a list
        b"\x81\xa1a\x01\x00",  # a byte too many
        b"\x82\xa1a\x01\xa1a\x02",  # a key twice
        b"\x81\xa1b\x82\xa1a\x01\xa1a\x01",  # a key twice, deeper
        bytes(msgpack.packb({"a": math.nan})),
        bytes(msgpack.packb({"a": [1, {"b": math.inf}]})),
        bytes(msgpack.packb({"a": -math.inf})),
        bytes(msgpack.packb({"a": [0] * (REQUESTS.items + 1)})),
        bytes(msgpack.packb({str(n): 0 for n in range(REQUESTS.keys + 1)})),
        bytes(msgpack.packb({"a": "x" * (REQUESTS.text + 1)})),
        bytes(msgpack.packb(nested(DEPTH + 1))),
        b"\x81\xa1a" + b"\x91" * 60_000 + b"\xc0",
        b"\x81\xa1a" * 20_000 + b"\xc0",
    ],
    ids=lambda body: body[:12].hex(),
)
def test_what_is_not_plain_data_is_refused(body: bytes) -> None:
    with pytest.raises(BadFrame):
        Decoder().feed(framed(body))


def test_the_limits_themselves_are_allowed() -> None:
    assert Decoder().feed(packed(nested(DEPTH))) == [nested(DEPTH)]
    full = {"a": [0] * REQUESTS.items, "b": "x" * REQUESTS.text}
    assert Decoder().feed(packed(full)) == [full]


def test_random_bytes_give_messages_or_a_bad_frame_and_nothing_else() -> None:
    rng = random.Random(20_240)
    for _ in range(3_000):
        noise = rng.randbytes(rng.randrange(1, 200))
        for stream in (noise, framed(noise), framed(b"\x81\xa1a" + noise)):
            try:
                messages = Decoder().feed(stream)
            except BadFrame:
                continue
            assert all(isinstance(message, dict) for message in messages)


def test_flipping_any_byte_of_a_frame_never_raises_anything_else() -> None:
    frame = encode(MESSAGE)
    for position in range(len(frame)):
        for value in (0x00, 0x7F, 0x80, 0x90, 0xC1, 0xC7, 0xDD, 0xFF):
            with suppress(BadFrame):
                Decoder().feed(frame[:position] + bytes([value]) + frame[position + 1 :])


def test_a_length_bomb_and_nested_lists_hold_no_memory() -> None:
    tracemalloc.start()
    try:
        bomb = b"\x91" * (16 << 20)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for stream in (bomb[: 64 << 10], framed(bomb[: REQUESTS.frame]), b"\x7f\xff\xff\xff" + bomb[:1000]):
            with pytest.raises(BadFrame):
                Decoder().feed(stream)
        worst = framed(b"\x81\xa1a\xdc\x03\xff" + b"\x80" * 1023)
        Decoder().feed(worst)
        assert tracemalloc.get_traced_memory()[1] - before < 8 << 20
    finally:
        tracemalloc.stop()


def test_an_answer_may_be_larger_than_a_request() -> None:
    answer = {"workers": [{"id": f"web/1#{n}", "pid": n} for n in range(5_000)]}
    frame = encode(answer)
    assert Decoder(RESPONSES).feed(frame) == [answer]
    with pytest.raises(BadFrame):
        Decoder(REQUESTS).feed(frame)


def test_a_message_that_does_not_fit_is_not_spelled() -> None:
    with pytest.raises(BadFrame, match="limit"):
        encode({"a": "x" * REQUESTS.frame}, REQUESTS)
    with pytest.raises(InternalError):
        encode({"a": 1 << 64})
    with pytest.raises(InternalError):
        encode({"a": object()})


def test_undecodable_text_is_sent_with_backslashes() -> None:
    assert Decoder().feed(encode({"argv": b"caf\xe9".decode("utf-8", "surrogateescape")})) == [{"argv": "caf\\udce9"}]


FLAT = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=30)
PLAIN = st.recursive(
    FLAT | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), PLAIN, max_size=5), st.integers(1, 40))
def test_any_plain_message_survives_any_chunking(message: dict[str, Any], size: int) -> None:
    decoder, frame = Decoder(), encode(message)
    found = [got for start in range(0, len(frame), size) for got in decoder.feed(frame[start : start + size])]
    assert found == [message]
