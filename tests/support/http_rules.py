"""The rules by which srvd refuses what another reader of HTTP/1.1 lets pass, each as a predicate on a request's bytes.

Not the guard: these are slow and plain, say only whether a rule is broken, and share nothing with `srvd.http`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
FIELD_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_TCHAR = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HEX = b"0123456789abcdefABCDEF"
_REG_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+;=")
LONGEST_METHOD = 48
_NO_TRAILERS = (b"authorization", b"content-length", b"host", b"te", b"trailer", b"transfer-encoding")

MOST_FIELDS = 100
LONGEST_BODY = 1 << 30


class Seen(NamedTuple):
    """One request as it came, cut into its parts in the plainest way; the last of them may not be all there."""

    head: bytes  # up to and with the empty line
    whole: bool  # the empty line is there
    line: bytes
    fields: list[bytes]  # the lines
    rest: bytes  # what came after the head

    @property
    def minor(self) -> bytes:
        return self.line[-1:]

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1] if self.line.count(b" ") == 2 else b""

    def values(self, name: bytes) -> list[bytes]:
        found = (line.partition(b":") for line in self.fields)
        return [value.strip(b" \t") for given, _, value in found if given.lower() == name]


def see(data: bytes) -> Seen:
    """The request that begins where `data` does."""
    end = re.search(rb"\n\r?\n", data)
    head = data[: end.end()] if end else data
    lines = head.removesuffix(b"\n").removesuffix(b"\r").removesuffix(b"\r\n").split(b"\r\n")
    return Seen(head, end is not None, lines[0], lines[1:], data[len(head) :])


# -- the request line ---------------------------------------------------------------------------------------------


def _bare_line_end(seen: Seen) -> bool:
    return re.search(rb"(?<!\r)\n|\r(?!\n|\Z)", seen.head) is not None


def _bad_line(seen: Seen) -> bool:
    line = seen.line
    if not seen.whole and not seen.fields:  # not over yet: no more than its characters can be judged
        return re.search(rb"[^\x20-\x7e\r]", line) is not None
    words = line.split(b" ")
    if len(words) != 3 or not all(words):
        return True
    method, target, version = words
    good = method.strip(_TCHAR) == b"" and all(0x20 < byte < 0x7F for byte in target)
    return not good or re.fullmatch(rb"HTTP/[0-9](\.[0-9])?", version) is None


def _other_version(seen: Seen) -> bool:
    return seen.line.count(b" ") == 2 and seen.line.rpartition(b" ")[2] not in (b"HTTP/1.0", b"HTTP/1.1")


def _unknown_method(seen: Seen) -> bool:
    method = seen.line.partition(b" ")[0]
    return method == b"CONNECT" or len(method) > LONGEST_METHOD


def _bad_target(seen: Seen) -> bool:
    target = seen.target
    if b"#" in target:
        return True
    if target == b"*":
        return not seen.line.startswith(b"OPTIONS ")
    if target.startswith(b"/"):
        return False
    scheme, colon, rest = target.partition(b"://")
    authority = re.split(rb"[/?]", rest, maxsplit=1)[0]
    return not colon or scheme.lower() not in (b"http", b"https") or not authority or _is_bad_host(authority)


def _https(seen: Seen) -> bool:
    return seen.target.lower().startswith(b"https://")


# -- fields -------------------------------------------------------------------------------------------------------


def _bad_field(seen: Seen) -> bool:
    lines = seen.fields if seen.whole else seen.fields[:-1]
    return any(_is_bad_field(line) for line in lines)


def _is_bad_field(line: bytes) -> bool:
    name, colon, value = line.partition(b":")
    return not colon or not name or name.strip(_TCHAR) != b"" or re.fullmatch(FIELD_VALUE, value) is None


def _bad_host(seen: Seen) -> bool:
    hosts = seen.values(b"host")
    return len(hosts) > 1 or (not hosts and seen.minor == b"1") or any(map(_is_bad_host, hosts))


def _is_bad_host(host: bytes) -> bool:
    if not host:  # RFC 9110 section 7.2: a client that knows no name
        return False
    text = host.decode("latin-1")
    name, bracket, rest = text.partition("]")
    if bracket:
        port = rest.removeprefix(":") if rest.startswith(":") or not rest else "?"
        return not name.startswith("[") or _is_bad_literal(name[1:]) or _is_bad_port(port)
    name, _, port = text.partition(":")
    plain = re.sub("%[0-9A-Fa-f]{2}", "", name)
    return not name or not set(plain) <= _REG_NAME or _is_bad_port(port)


def _is_bad_literal(literal: str) -> bool:
    if literal[:1] in ("v", "V"):
        return re.fullmatch(r"v[0-9A-Fa-f]+\.[-A-Za-z0-9._~!$&'()*+;=:]+", literal) is None
    try:
        ipaddress.IPv6Address(literal)
    except ValueError:
        return True
    return "%" in literal


def _is_bad_port(port: str) -> bool:
    return port != "" and (re.fullmatch("[0-9]{1,5}", port) is None or int(port) > 65_535)


def _content_type_twice(seen: Seen) -> bool:
    return len(seen.values(b"content-type")) > 1


def _many_fields(seen: Seen) -> bool:
    return len(seen.fields) > MOST_FIELDS


def _unknown_expectation(seen: Seen) -> bool:
    members = (member.strip(b" \t").lower() for member in _joined(seen, b"expect").split(b","))
    return seen.minor == b"1" and any(member not in (b"", b"100-continue") for member in members)


def _joined(seen: Seen, name: bytes) -> bytes:
    return b",".join(seen.values(name))


# -- framing ------------------------------------------------------------------------------------------------------


def _bad_length(seen: Seen) -> bool:
    lengths = seen.values(b"content-length")
    return len(lengths) > 1 or any(re.fullmatch(rb"[0-9]{1,18}", length) is None for length in lengths)


def _long_body(seen: Seen) -> bool:
    if any(length.isdigit() and int(length[:30]) > LONGEST_BODY for length in seen.values(b"content-length")):
        return True
    return "long" in _chunk_faults(seen)


def _bad_coding(seen: Seen) -> bool:
    codings = seen.values(b"transfer-encoding")
    if not codings:
        return False
    return (
        codings[0].lower() != b"chunked"
        or len(codings) > 1
        or seen.minor == b"0"
        or _joined(seen, b"content-length") != b""
    )


def _bad_chunk(seen: Seen) -> bool:
    return "chunk" in _chunk_faults(seen)


def _bad_trailer(seen: Seen) -> bool:
    return "trailer" in _chunk_faults(seen)


def _chunk_faults(seen: Seen) -> set[str]:
    """What is the first thing wrong with a chunked body: "chunk", "trailer", "long", or nothing."""
    if not seen.whole or _joined(seen, b"transfer-encoding").lower() != b"chunked":
        return set()
    at = total = 0
    while True:
        end = seen.rest.find(b"\n", at)
        line = seen.rest[at : end + 1] if end >= 0 else seen.rest[at:]
        digits, semicolon, extension = line.removesuffix(b"\n").removesuffix(b"\r").partition(b";")
        if digits.strip(_HEX) or len(digits) > 16 or re.fullmatch(FIELD_VALUE, extension) is None:
            return {"chunk"}
        if not digits and (semicolon or end >= 0):
            return {"chunk"}
        if end < 0:
            return set()
        if not line.endswith(b"\r\n") or (semicolon and _is_bad_extension(extension)):
            return {"chunk"}
        size = int(digits, 16)
        total += size
        if total > LONGEST_BODY:
            return {"long"}
        if not size:
            return _trailer_faults(seen.rest[end + 1 :])
        at = end + 1 + size
        if not b"\r\n".startswith(seen.rest[at : at + 2]):
            return {"chunk"}
        if len(seen.rest) < at + 2:
            return set()
        at += 2


def _is_bad_extension(text: bytes) -> bool:
    """Names, each with a value or none, between semicolons that are in no string: RFC 9112 section 7.1.1."""
    bare = re.sub(rb'"(?:[^"\\]|\\.)*"', b'"', text)
    *parts, last = bare.split(b";")
    parts = [part.strip(b" \t") for part in parts] + [last.lstrip(b" \t")]
    return not all(re.fullmatch(rb"%b(?:[ \t]*=[ \t]*(?:%b|\"))?" % (TOKEN, TOKEN), part) for part in parts)


def _trailer_faults(data: bytes) -> set[str]:
    while True:
        line, ended, data = data.partition(b"\n")
        if not ended or line == b"\r":
            return set()
        if not line.endswith(b"\r") or _is_bad_field(line[:-1]) or line.partition(b":")[0].lower() in _NO_TRAILERS:
            return {"trailer"}


class Rule(NamedTuple):
    name: str
    statuses: tuple[int, ...]  # of which one is the answer
    reason: str
    is_broken_by: Callable[[Seen], bool]


RULES: tuple[Rule, ...] = (
    Rule("line end", (400,), "RFC 9112 section 2.2: a lone CR is invalid, a lone LF may be refused", _bare_line_end),
    Rule("line", (400,), "RFC 9112 section 3: method SP target SP version, and no other white space", _bad_line),
    Rule("version", (505, 400), "RFC 9110 section 2.5: 1.0 and 1.1 are spoken, nothing else", _other_version),
    Rule("method", (501,), "RFC 9110 section 9.3.6, RFC 9112 section 3: CONNECT, or too long", _unknown_method),
    Rule("target", (400,), "RFC 9112 section 3.2: none of the forms, for that method", _bad_target),
    Rule("https", (421,), "RFC 9110 section 7.4: a target for a secured connection on one that is not", _https),
    Rule("field", (400,), "RFC 9110 section 5.5, RFC 9112 section 5: controls, folded lines, bad names", _bad_field),
    Rule("host", (400,), "RFC 9112 section 3.2: exactly one in 1.1, and host[:port]", _bad_host),
    Rule("content type", (400,), "RFC 9110 section 5.3: a field that is no list is given once", _content_type_twice),
    Rule("many fields", (431,), "RFC 9110 section 5.4: the limit is the server's to choose", _many_fields),
    Rule("expectation", (417,), "RFC 9110 section 10.1.1: only 100-continue can be met", _unknown_expectation),
    Rule("length", (400,), "RFC 9112 section 6.3: one Content-Length, of 1 to 18 digits", _bad_length),
    Rule("long body", (413,), "RFC 9110 section 15.5.14: more than max_body", _long_body),
    Rule("coding", (400, 501), "RFC 9112 section 6.1: only chunked, said once, in 1.1, without a length", _bad_coding),
    Rule("chunk", (400,), "RFC 9112 section 7.1: as the grammar has it, and no control characters", _bad_chunk),
    Rule("trailer", (400,), "RFC 9110 section 6.5: field lines that neither frame nor route", _bad_trailer),
)  # fmt: skip
