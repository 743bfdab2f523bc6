"""What a request must be beyond what llhttp checks: its line, its host, its framing, its expectations.

Looks at values that were found by the parser, never at bytes on a wire; each function is one rule. Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from srvd.http.h1.limits import Limits
from srvd.http.h1.refusal import Refusal

__all__ = [
    "CHUNKED",
    "Line",
    "check_host",
    "check_line_begun",
    "check_sizes",
    "content_length",
    "expects_continue",
    "persistent",
    "request_line",
    "transfer_coding",
]

CHUNKED = -1
"""The length of a body that comes in chunks."""

_LONGEST_METHOD = 48  # three times the longest that is registered
_LINE_SLACK = 64  # what a request line has beside its target: method, version, two spaces

# RFC 9112 section 3: method SP request-target SP HTTP-version, written in this way only. The target is visible ASCII
# (RFC 3986 has nothing else) without a fragment.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-\"$-~]+) HTTP/1\.([01])")
_OTHER_VERSION = re.compile(_TOKEN + rb" [!-\"$-~]+ HTTP/[0-9](?:\.[0-9])?")
_NOT_IN_A_LINE = re.compile(rb"[^ -~\r]")
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?]*)(.*)")
_PERCENT = re.compile("%([0-9A-Fa-f]{2})")
# RFC 3986 section 3.2.2: a registered name, an IPv4 address or an IP literal; then maybe a port. No user, no comma.
_HOST = re.compile(
    r"(?:(?:[0-9A-Za-z\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+|\[([0-9A-Fa-f:.]+)\]|\[v[0-9A-Fa-f]+\.[0-9A-Za-z\-._~!$&'()*+;=:]+\])"
    r"(?::([0-9]{0,5}))?"
)
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
_GROUP = re.compile("[0-9A-Fa-f]{1,4}")
_GROUPS = 8
_DIGITS = re.compile("[0-9]{1,18}")
_OWS = " \t"


class Line(NamedTuple):
    """A request line that was accepted."""

    method: str
    target: str  # as received
    path: str  # percent-decoded, one character a byte (PEP 3333); "/" for "*"
    query: str
    minor: int  # of HTTP/1.x
    authority: str  # of an absolute-form target, "" else
    scheme: str  # of an absolute-form target, "" else


def request_line(line: bytes, limits: Limits) -> Line:
    """The parts of a request line without its end. Raises `Refusal`: 400, 414, 501, 505."""
    match = _LINE.fullmatch(line)
    if len(line) > limits.line + _LINE_SLACK or (match and len(match[2]) > limits.line):
        raise Refusal(414, f"the target is longer than {limits.line} bytes")
    if not match:
        if _OTHER_VERSION.fullmatch(line):
            raise Refusal(505, "the version is neither 1.0 nor 1.1")
        raise Refusal(400, "malformed request line")
    method, target = match[1].decode("ascii"), match[2].decode("ascii")
    # RFC 9110 section 9.1: which of all tokens are methods here is known to the application alone.
    if method == "CONNECT":
        raise Refusal(501, "CONNECT is for proxies")
    if len(method) > _LONGEST_METHOD:  # RFC 9112 section 3
        raise Refusal(501, f"the method is longer than {_LONGEST_METHOD} bytes")
    rest, authority, scheme = target, "", ""
    if target[0] != "/":
        rest, authority, scheme = _other_form(method, target)
    path, _, query = rest.partition("?")
    if "%" in path:
        path = _PERCENT.sub(_decoded, path)
    return Line(method, target, path, query, int(match[3]), authority, scheme)


def _other_form(method: str, target: str) -> tuple[str, str, str]:
    """Path and query, authority and scheme of a target that is no path (RFC 9112 sections 3.2.2 and 3.2.4)."""
    if target == "*":
        if method != "OPTIONS":
            raise Refusal(400, "the target * is for OPTIONS only")
        # All of the server. A proxy turns it into a URI without a path (RFC 9112 section 3.2.4), so the root is asked:
        # "*" is no PATH_INFO (RFC 3875 section 4.1.5), and frameworks answer it with 404, and an empty one with 308.
        return "/", "", ""
    match = _ABSOLUTE.fullmatch(target)
    if not match:
        raise Refusal(400, "the target is neither a path nor a URI")
    scheme, authority, rest = match[1].lower(), match[2], match[3]
    if scheme not in ("http", "https"):
        raise Refusal(400, "the target's scheme is neither http nor https")
    check_host(authority)
    return (rest if rest.startswith("/") else f"/{rest}"), authority, scheme


def _decoded(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


def check_line_begun(piece: bytes, length: int, limits: Limits) -> None:
    """Refuses a request line that has not ended yet and cannot become one: garbage, TLS, or too long.

    `piece` is what came last, `length` the line's length with it. Garbage is answered when it comes, not when the
    head's time is over.
    """
    if _NOT_IN_A_LINE.search(piece):
        raise Refusal(400, "malformed request line")
    if length > limits.line + _LINE_SLACK:
        raise Refusal(414, f"the target is longer than {limits.line} bytes")


def check_sizes(head: bytes, limits: Limits) -> None:
    """Refuses with 431 a head that is too long, or has too long a field."""
    if len(head) > limits.head:
        raise Refusal(431, f"the head is longer than {limits.head} bytes")
    if max(map(len, head.split(b"\r\n")[1:])) > limits.field:
        raise Refusal(431, f"a field is longer than {limits.field} bytes")


def check_host(host: str) -> None:
    """Refuses what is no host[:port] (RFC 9112 section 3.2): a path, a user, white space, a comma, nothing."""
    match = _HOST.fullmatch(host)
    if not match or int(match[2] or 0) > 65_535 or (match[1] and not _is_ipv6(match[1])):
        raise Refusal(400, "the host is malformed")


def _is_ipv6(literal: str) -> bool:
    """RFC 3986 section 3.2.2: eight groups, the last two maybe as an IPv4 address, one run of zeros maybe as `::`."""
    last = literal.rpartition(":")[2]
    if "." in last:
        if not _IPV4.fullmatch(last):
            return False
        literal = f"{literal.removesuffix(last)}0:0"
    before, shortened, after = literal.partition("::")
    groups = [*before.split(":"), *after.split(":")] if before and after else (before or after).split(":")
    if shortened and groups == [""]:
        return True  # "::" alone
    if not all(map(_GROUP.fullmatch, groups)):
        return False
    return len(groups) < _GROUPS if shortened else len(groups) == _GROUPS


def content_length(value: str, limits: Limits) -> int:
    """The number of a Content-Length field (RFC 9110 section 8.6): digits and nothing else."""
    # int() alone would take "+5", "0_5", " 5" and digits of other scripts.
    if not _DIGITS.fullmatch(value):
        raise Refusal(400, "malformed Content-Length")
    length = int(value)
    if limits.body and length > limits.body:
        raise Refusal(413, f"the body is longer than {limits.body} bytes")
    return length


def transfer_coding(value: str, minor: int, *, lengthy: bool) -> int:
    """CHUNKED, or a refusal (RFC 9112 section 6.1). `lengthy`: there is a Content-Length, too."""
    if minor == 0:
        raise Refusal(400, "Transfer-Encoding in HTTP/1.0")
    if lengthy:
        raise Refusal(400, "Transfer-Encoding with Content-Length")
    coding = value.strip(_OWS).lower()
    if coding == "chunked":
        return CHUNKED
    first, _, last = coding.rpartition(",")
    if last.strip(_OWS) != "chunked":
        raise Refusal(400, "chunked is not the last transfer coding")  # section 6.3, item 4
    if {name.strip(_OWS) for name in first.split(",")} <= {"chunked", ""}:
        raise Refusal(400, "malformed Transfer-Encoding")
    raise Refusal(501, "a transfer coding other than chunked")


def persistent(connection: str, minor: int) -> bool:
    """Whether the connection may be used again (RFC 9112 section 9.3). `connection`: all Connection lines, joined."""
    options = {option.strip(_OWS) for option in connection.lower().split(",")}
    if "close" in options:
        return False
    return minor == 1 or "keep-alive" in options


def expects_continue(value: str, minor: int) -> bool:
    """Whether a 100 (Continue) is waited for (RFC 9110 section 10.1.1, a list); in HTTP/1.0 the field means nothing.

    `value`: all Expect lines, joined.
    """
    if minor == 0:
        return False
    expected = {member.strip(_OWS) for member in value.lower().split(",")} - {""}
    if expected - {"100-continue"}:
        raise Refusal(417, "an expectation other than 100-continue")
    return bool(expected)
