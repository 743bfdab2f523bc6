"""Reads headers of the PROXY protocol, versions 1 and 2, which a load balancer writes before the client's own bytes.

Has no socket and trusts no peer by itself: the owner of a connection decides whether it may begin with a header. The
format is HAProxy's "The PROXY protocol", sections 2.1 and 2.2. Pure.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import NamedTuple

from srvd.http.proxies.networks import plain_number

__all__ = ["LONGEST", "Endpoints", "ProxyInvalid", "ProxyReader"]

LONGEST = 4096
"""The most bytes of a header. Addresses take at most 232; the rest are additions (TLVs), and srvd uses none of them."""

_LONGEST_1 = 107  # section 2.1: with its CR LF
_MAGIC_1 = b"PROXY "
_MAGIC_2 = b"\r\n\r\n\0\r\nQUIT\n"
_HEAD_2 = 16
# Only one spelling is accepted: one space between words, numbers without leading zeros.
_LINE_1 = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_UNKNOWN_1 = re.compile(rb"PROXY UNKNOWN(?: [ -~]*)?\r\n")
_LOCAL, _PROXY = 0x20, 0x21  # version 2 and its command
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_LENGTHS = {_TCP4: 12, _TCP6: 36, _UNIX: 216}
_CRC32C = 0x03  # PP2_TYPE_CRC32C


class ProxyInvalid(ValueError):
    """The bytes received are no header of the PROXY protocol; the connection ends without an answer (section 2)."""


class Endpoints(NamedTuple):
    """The two ends of the client's connection to the balancer. The addresses of a Unix socket are ""."""

    source: str
    source_port: int
    destination: str
    destination_port: int


class ProxyReader:
    """Reads one header: `take` the bytes received until `complete`; then `endpoints` are the client's, or None if the
    client is the connection's own peer.
    """

    __slots__ = ("_data", "complete", "endpoints")

    def __init__(self) -> None:
        self._data = b""
        self.complete = False
        self.endpoints: Endpoints | None = None

    def take(self, data: bytes) -> int:
        """Takes bytes, and returns how many of them belong to the header; the rest are the client's.

        Raises `ProxyInvalid`.
        """
        before = len(self._data)
        seen = self._data + data  # at most LONGEST and one read
        end = self._end(seen)
        if end < 0:
            self._data = seen
            return len(data)
        self._data = seen[:end]
        self.endpoints = _read_1(self._data) if seen[:1] == b"P" else _read_2(self._data)
        self.complete = True
        return end - before

    def _end(self, seen: bytes) -> int:
        """Returns the length of the header; -1 while the header is incomplete."""
        if _MAGIC_1.startswith(seen[:6]):
            end = seen.find(b"\r\n", 0, _LONGEST_1) + 2
            if end == 1 and len(seen) >= _LONGEST_1:
                raise ProxyInvalid("the line is too long")
            if end == 1 and b"\n" in seen:
                raise ProxyInvalid("the line ends without a CR")
            return end if end > 1 else -1
        if not _MAGIC_2.startswith(seen[:12]):
            raise ProxyInvalid("it does not begin with the signature of either version")
        if len(seen) < _HEAD_2:
            return -1
        end = _HEAD_2 + int.from_bytes(seen[14:16], "big")
        if end > LONGEST:
            raise ProxyInvalid(f"it is longer than {LONGEST} bytes")
        return end if len(seen) >= end else -1


def _read_1(line: bytes) -> Endpoints | None:
    if _UNKNOWN_1.fullmatch(line):
        return None
    match = _LINE_1.fullmatch(line)
    if match is None:
        raise ProxyInvalid("the line is malformed")
    family, source, destination, source_port, destination_port = (group.decode("ascii") for group in match.groups())
    kind = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    ports = int(source_port), int(destination_port)
    try:
        addresses = plain_number(kind(source)), plain_number(kind(destination))
    except ValueError:
        raise ProxyInvalid("the line has an address that is none") from None
    if max(ports) > 65_535:
        raise ProxyInvalid("the line has a port that is none")
    return Endpoints(addresses[0], ports[0], addresses[1], ports[1])


def _read_2(header: bytes) -> Endpoints | None:
    command, family = header[12], header[13]
    if command not in (_LOCAL, _PROXY):
        raise ProxyInvalid("its version or command is unknown")
    length = _LENGTHS.get(family, 0)
    if command == _PROXY and not length and family != _UNSPECIFIED:
        raise ProxyInvalid("its client does not speak over a stream")
    if len(header) < _HEAD_2 + length:
        raise ProxyInvalid("it is too short for its addresses")
    body = header[_HEAD_2:]
    if command == _PROXY:
        _check_additions(header, _HEAD_2 + length)
    if command == _LOCAL or family == _UNSPECIFIED:
        return None  # a health check of the balancer itself: section 2.2 says to ignore the addresses
    if family == _UNIX:
        return Endpoints("", 0, "", 0)
    width = 4 if family == _TCP4 else 16
    kind = ipaddress.IPv4Address if family == _TCP4 else ipaddress.IPv6Address
    source, destination = (plain_number(kind(body[at : at + width])) for at in (0, width))
    source_port, destination_port = struct.unpack_from(">HH", body, 2 * width)
    return Endpoints(source, source_port, destination, destination_port)


def _check_additions(header: bytes, at: int) -> None:
    """Checks the TLVs of section 2.2: each is whole, and a checksum fits. Raises `ProxyInvalid`."""
    while at < len(header):
        end = at + 3 + int.from_bytes(header[at + 1 : at + 3], "big")
        if at + 3 > len(header) or end > len(header):
            raise ProxyInvalid("an addition is cut off")
        if header[at] == _CRC32C:
            told = header[at + 3 : end]
            if len(told) != 4 or int.from_bytes(told, "big") != _crc32c(header[: at + 3] + bytes(4) + header[end:]):
                raise ProxyInvalid("its checksum does not fit")
        at = end


def _crc32c(data: bytes) -> int:
    """Returns the CRC32c of RFC 4960 appendix B. Works bit by bit: a table would not pay for one use a connection."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
