"""Claims about compression: what goes round comes round, and what is inflated is bounded."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
import zlib

import pytest

from srvd.http.ws.extensions import Agreement, Deflate
from srvd.http.ws.frames import COMPRESSED
from srvd.http.ws.limits import Limits
from srvd.http.ws.reader import Closed
from srvd.http.ws.websocket import WebSocket
from tests.support.websocket_feed import BINARY, MORE, PING, TEXT, compressed, deflated, frame, one_by_one, read

MIB = 1 << 20
BITS = COMPRESSED
BOMB = frame(BINARY, (deflated(bytes(MIB)) + b"\x00\x00\xff\xff") * 256, bits=COMPRESSED)
"""256 MiB of zeros in less than 300 KiB."""


@pytest.mark.parametrize(
    ("payload", "how"),
    [
        ("f248cdc9c90700", "one block"),
        ("000500faff48656c6c6f00", "no compression"),
        ("f348cdc9c9070000", "a final block"),
        ("f348cdc9c90700", "a final block, and nothing after it"),
        ("f248050000 00ffffcac9c90700".replace(" ", ""), "two blocks"),
    ],
)
def test_the_examples_of_the_rfc_are_inflated(payload: str, how: str) -> None:
    """RFC 7692 section 7.2.3."""
    data = frame(TEXT, bytes.fromhex(payload), bits=BITS)
    for pieces in ([data], one_by_one(data)):
        assert read(pieces, agreement=Agreement()).events == ["Hello"], how
    again = data + compressed(TEXT, b"again") + data
    assert read([again], agreement=Agreement()).events == ["Hello", "again", "Hello"], how


def test_the_second_message_may_refer_to_the_first() -> None:
    """RFC 7692 section 7.2.3.2."""
    data = frame(TEXT, bytes.fromhex("f248cdc9c90700"), bits=BITS) + frame(TEXT, bytes.fromhex("f200110000"), bits=BITS)
    assert read([data], agreement=Agreement()).events == ["Hello", "Hello"]
    alone = read([data], agreement=Agreement(client_takeover=False))
    assert alone.closed.code == 1007


def test_a_compressed_message_may_be_empty_and_in_fragments() -> None:
    assert read([frame(TEXT, b"\x00", bits=BITS) + frame(TEXT, b"", bits=BITS)], agreement=Agreement()).events == [
        "",
        "",
    ]
    payload = deflated("größer".encode() * 100)
    data = frame(TEXT, payload[:7], final=False, bits=BITS) + frame(PING, b"p") + frame(MORE, payload[7:])
    for pieces in ([data], one_by_one(data)):
        assert read(pieces, agreement=Agreement()).events == ["größer" * 100]


def test_messages_that_are_not_compressed_are_read_beside_those_that_are() -> None:
    data = compressed(TEXT, b"one") + frame(BINARY, b"two") + frame(TEXT, b"three") + compressed(BINARY, b"four")
    assert read([data], agreement=Agreement()).events == ["one", b"two", "three", b"four"]


@pytest.mark.parametrize("payload", [b"\xff\xff\xff", b"\x06", deflated(b"a" * 100)[:-1] + b"\xff\xff"])
def test_what_cannot_be_inflated_is_refused(payload: bytes) -> None:
    assert read([frame(BINARY, payload, bits=BITS)], agreement=Agreement()).closed.code == 1007


def test_inflated_text_is_checked_as_it_comes() -> None:
    payload = deflated(b"a" * 200_000 + b"\xff" + random.Random(1).randbytes(200_000))
    data = frame(TEXT, payload, bits=BITS)
    pieces = [data[at : at + 1000] for at in range(0, len(data) // 2, 1000)]
    assert read(pieces, agreement=Agreement()).closed.code == 1007


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_what_the_server_compresses_its_client_inflates(bits: int, takeover: bool) -> None:
    websocket = WebSocket(Limits(), Agreement(server_bits=bits, server_takeover=takeover, threshold=10))
    client = zlib.decompressobj(-bits)
    rng = random.Random(bits)
    messages = [rng.randbytes(10) * rng.randrange(1, 5000) for _ in range(20)] + [rng.randbytes(70_000)]
    sizes = []
    for number, message in enumerate([*messages, messages[0]]):
        if number == 10:
            websocket.release_memory()
        data = websocket.send(message)
        assert data[0] == 0x82 | COMPRESSED
        payload = data[{126: 4, 127: 10}.get(data[1], 2) :]
        if not takeover:
            client = zlib.decompressobj(-bits)
        assert client.decompress(payload + b"\x00\x00\xff\xff") == message
        sizes.append(len(payload))
    first, second = websocket.send(b"0123456789abcdef" * 4), websocket.send(b"0123456789abcdef" * 4)
    assert (len(second) < len(first)) == takeover


def test_short_messages_are_sent_as_they_are() -> None:
    websocket = WebSocket(Limits(), Agreement(threshold=Deflate().threshold))
    assert websocket.send("a" * 63) == b"\x81\x3f" + b"a" * 63
    assert websocket.send("a" * 64)[0] == 0x81 | COMPRESSED
    assert WebSocket(Limits(), None).send("a" * 64)[0] == 0x81


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_a_message_is_measured_after_it_was_inflated() -> None:
    limits = Limits(message=100_000)
    assert read([compressed(BINARY, bytes(100_000))], limits, Agreement()).events == [bytes(100_000)]
    for data in (compressed(BINARY, bytes(100_001)), compressed(TEXT, b"a" * 1_000_000)):
        for pieces in ([data], one_by_one(data)):
            assert read(pieces, limits, Agreement()).closed.code == 1009


def test_a_message_that_cannot_be_compressed_is_not_refused_for_its_frames() -> None:
    message = random.Random(1).randbytes(100_000)
    data = compressed(BINARY, message)
    assert len(data) > 100_000
    assert read([data], Limits(message=100_000), Agreement()).events == [message]


def test_compressed_frames_that_come_to_nothing_are_bounded_too() -> None:
    nothing = b"\x00\x00\x00\xff\xff" * 200
    data = frame(BINARY, nothing, final=False, bits=BITS) + frame(MORE, nothing, final=False) * 10
    assert read([data], Limits(message=1000), Agreement()).closed.code == 1009


def test_final_blocks_within_a_message_are_bounded() -> None:
    ends = b"\x03\x00"  # a whole stream of two bytes
    assert read([frame(BINARY, ends * 60, bits=BITS)], agreement=Agreement()).events == [b""]
    assert read([frame(BINARY, ends * 70, bits=BITS)], agreement=Agreement()).closed.code == 1008
    assert read([frame(BINARY, ends * 60, bits=BITS) * 3], agreement=Agreement()).events == [b""] * 3


def test_one_read_inflates_a_bounded_number_of_bytes_and_the_rest_later() -> None:
    limits = Limits(message=MIB, inflated=2 * MIB)
    websocket = WebSocket(limits, Agreement())
    bomb = compressed(BINARY, bytes(MIB))
    events = websocket.receive(bomb * 20 + frame(TEXT, b"last"))
    found = 0
    while websocket.has_more:
        assert len(events) == 3  # the third takes it over two
        found += len(events)
        events = websocket.receive(b"")
    assert found + len(events) == 21
    assert events[-1] == "last"


def test_a_bomb_takes_no_more_memory_than_a_message_may() -> None:
    """The interpreter's own count: bytes that are held, and what zlib's output is collected in."""
    assert len(BOMB) < 300_000
    websocket = WebSocket(Limits(message=8 * MIB), Agreement())
    tracemalloc.start()
    try:
        (event,) = websocket.receive(BOMB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(event, Closed)
    assert event.code == 1009
    # A bytearray reserves an eighth more than it has; those pages are never touched.
    assert peak < 8 * MIB * 9 / 8 + MIB


def test_bombs_add_less_than_the_limit_to_a_process() -> None:
    """W19 of the scoreboard: 256 MiB of zeros in 256 KiB, with the default limits."""
    script = """
import resource
from srvd.http.ws.extensions import Agreement
from srvd.http.ws.limits import Limits
from srvd.http.ws.websocket import WebSocket
import sys
bomb = sys.stdin.buffer.read()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
WebSocket(Limits(), Agreement()).receive(bomb[:1000])
before = peak()
(event,) = WebSocket(Limits(), Agreement()).receive(bomb)
print(event.code, peak() - before)
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, input=BOMB, capture_output=True, timeout=120, check=True)
    code, grown = map(int, result.stdout.split())
    assert code == 1009
    assert grown <= 17, "MiB; a message may have 16"
