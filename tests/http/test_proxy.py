"""Claims about the PROXY protocol: each header is fed whole, byte by byte, and with the client's bytes behind it."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srvd.http.proxies.proxy_protocol import LONGEST, Endpoints, ProxyInvalid, ProxyReader, _crc32c

MAGIC = b"\r\n\r\n\0\r\nQUIT\n"
V4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 56324, 443)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "::1")
    + struct.pack(">HH", 1, 65535)
)  # fmt: skip
CLIENT_4 = Endpoints("192.0.2.7", 56324, "198.51.100.1", 443)
CLIENT_6 = Endpoints("2001:db8::7", 1, "::1", 65535)
LATER = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def two(command: int, family: int, body: bytes, *, length: int | None = None) -> bytes:
    return MAGIC + bytes([command, family]) + struct.pack(">H", len(body) if length is None else length) + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + struct.pack(">H", len(value)) + value


def summed(family: int, body: bytes) -> bytes:
    """A header with its checksum."""
    empty = two(0x21, family, body + tlv(3, bytes(4)))
    return empty[:-4] + struct.pack(">I", _crc32c(empty))


GOOD: dict[str, tuple[bytes, Endpoints | None]] = {
    "1 TCP4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", CLIENT_4),
    "1 TCP6": (b"PROXY TCP6 2001:DB8::7 ::1 1 65535\r\n", CLIENT_6),
    "1 mapped": (
        b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 56324 443\r\n",
        CLIENT_4,
    ),
    "1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "1 UNKNOWN with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    "1 longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    "2 TCP4": (two(0x21, 0x11, V4), CLIENT_4),
    "2 TCP6": (two(0x21, 0x21, V6), CLIENT_6),
    "2 unix": (two(0x21, 0x31, bytes(216)), Endpoints("", 0, "", 0)),
    "2 unspecified": (two(0x21, 0x00, b""), None),
    "2 local": (two(0x20, 0x00, b""), None),
    "2 local with addresses": (two(0x20, 0x11, V4), None),
    "2 local with anything": (two(0x20, 0x00, b"\xff" * 7), None),
    "2 additions": (two(0x21, 0x11, V4 + tlv(4, b"noop") + tlv(2, b"shop.example")), CLIENT_4),
    "2 checksum": (summed(0x11, V4 + tlv(4, b"")), CLIENT_4),
    "2 longest": (two(0x21, 0x11, V4 + tlv(4, bytes(LONGEST - 16 - 12 - 3))), CLIENT_4),
}

BAD: dict[str, bytes] = {
    "no header": LATER,
    "TLS": b"\x16\x03\x01\x02\x00\x01",
    "1 lower case": b"proxy TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
    "1 too long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "1 no end": b"PROXY UNKNOWN " + b"x" * 200,
    "1 bare LF": b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n",
    "1 two spaces": b"PROXY TCP4  192.0.2.7 198.51.100.1 56324 443\r\n",
    "1 space at the end": b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443 \r\n",
    "1 other family": b"PROXY UDP4 192.0.2.7 198.51.100.1 56324 443\r\n",
    "1 six for four": b"PROXY TCP4 ::1 ::1 1 1\r\n",
    "1 four for six": b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
    "1 no address": b"PROXY TCP4 192.0.2.300 198.51.100.1 56324 443\r\n",
    "1 zero before": b"PROXY TCP4 192.0.2.7 198.51.100.1 056324 443\r\n",
    "1 port too high": b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
    "1 no ports": b"PROXY TCP4 192.0.2.7 198.51.100.1\r\n",
    "1 nothing": b"PROXY \r\n",
    "1 NUL": b"PROXY UNKNOWN \0\r\n",
    "2 version 1": two(0x11, 0x11, V4),
    "2 version 3": two(0x31, 0x11, V4),
    "2 command": two(0x22, 0x11, V4),
    "2 datagrams": two(0x21, 0x12, V4),
    "2 family": two(0x21, 0x41, V4),
    "2 too short": two(0x21, 0x11, V4[:-1]),
    "2 six in four": two(0x21, 0x21, V4),
    "2 too long": two(0x21, 0x11, V4 + bytes(LONGEST)),
    "2 addition cut": two(0x21, 0x11, V4 + b"\x04\x00"),
    "2 addition too long": two(0x21, 0x11, V4 + b"\x04\x00\x05abcd"),
    "2 wrong checksum": two(0x21, 0x11, V4 + tlv(3, b"\1\2\3\4")),
    "2 short checksum": two(0x21, 0x11, V4 + tlv(3, b"\1\2\3")),
    "2 magic": b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\x0c" + V4,
}


def test_the_checksum_is_crc32c() -> None:
    assert _crc32c(b"123456789") == 0xE3069283  # the check value of its catalogue


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_whole_and_what_follows_it_is_left(name: str) -> None:
    header, endpoints = GOOD[name]
    for behind in (b"", b"\r\n", LATER, header):
        reader = ProxyReader()
        assert reader.take(header + behind) == len(header)
        assert (reader.complete, reader.endpoints) == (True, endpoints)


@pytest.mark.parametrize("name", GOOD)
def test_a_header_is_read_byte_by_byte(name: str) -> None:
    header, endpoints = GOOD[name]
    reader = ProxyReader()
    for at in range(len(header)):
        assert not reader.complete
        assert reader.take(header[at : at + 1]) == 1
    assert (reader.complete, reader.endpoints) == (True, endpoints)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("cut", [5, 13, 17, 30])
def test_a_header_is_read_in_two_pieces_the_second_with_more(name: str, cut: int) -> None:
    header, endpoints = GOOD[name]
    first = header[: min(cut, len(header) - 1)]
    reader = ProxyReader()
    assert reader.take(first) == len(first)
    assert reader.take(header[len(first) :] + LATER) == len(header) - len(first)
    assert reader.endpoints == endpoints


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused(name: str) -> None:
    with pytest.raises(ProxyInvalid):
        ProxyReader().take(BAD[name] + LATER)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_header_is_refused_byte_by_byte(name: str) -> None:
    with pytest.raises(ProxyInvalid):
        take_bytewise(BAD[name])


def take_bytewise(data: bytes) -> None:
    reader = ProxyReader()
    for at in range(len(data)):
        reader.take(data[at : at + 1])


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", MAGIC, MAGIC + b"\x21\x11\x00"]), st.integers(1, 40))
def test_any_bytes_come_to_the_same_however_they_are_cut(noise: bytes, start: bytes, cut: int) -> None:
    data = start + noise

    def outcome(pieces: list[bytes]) -> object:
        reader = ProxyReader()
        used = 0
        try:
            for piece in pieces:
                used += reader.take(piece)
                if reader.complete:
                    return used, reader.endpoints
        except ProxyInvalid:
            return "refused"
        assert len(reader._data) == len(data) <= LONGEST
        return "more"

    assert outcome([data]) == outcome([data[at : at + cut] for at in range(0, len(data), cut)])
