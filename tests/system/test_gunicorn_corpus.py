"""gunicorn's corpus of requests against a real srvd: the good ones are served right, the bad ones are refused.

Where srvd differs on purpose, the case is named below with its reason. The corpus itself is fetched
(support/gunicorn_corpus.py).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from srvd.http.h1.limits import Limits
from tests.conftest import Starter
from tests.support import gunicorn_corpus
from tests.support.daemon import Srvd
from tests.support.gunicorn_corpus import Case, Expected
from tests.support.http_feed import whole
from tests.support.worker_rig import Client

pytestmark = [pytest.mark.system, pytest.mark.slow]

APP = """
import json
from wsgiref.validate import validator


def app(environ, start_response):
    body = environ["wsgi.input"].read(1 << 20)
    told = {name: value for name, value in environ.items() if isinstance(value, str)}
    trailers = [[part.decode("latin-1") for part in pair] for pair in environ.get("srvd.trailers", [])]
    answer = json.dumps({"environ": told, "body": body.decode("latin-1"), "trailers": trailers}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


app = validator(app)
"""
"""Answers with the request as it was given."""

CONFIG = """
[listeners.web]
bind = ["127.0.0.1:0"]

[listeners.balanced]
bind = ["127.0.0.1:0"]
proxy_protocol = true
proxy_from = ["127.0.0.1"]

[listeners.proxied]
bind = ["127.0.0.1:0"]
trusted_proxies = ["127.0.0.1"]

[listeners.strict]
bind = ["127.0.0.1:0"]

[pools.web]
app = "app:app"
listeners = ["web", "balanced", "proxied"]
workers = 1

[pools.strict]
app = "app:app"
listeners = ["strict"]
workers = 1
underscore_headers = "refuse"
"""

HOST = "corpus.example"
"""Of requests that come without one."""


class Stricter(NamedTuple):
    """A good request of the corpus that srvd refuses."""

    status: int
    reason: str


_TWO_CODINGS = "RFC 9112 section 6.1: a coding that is not understood is answered with 501; only chunked is"
_CODING_LINES = "RFC 9112 section 6.1: the coding decides where a request ends, so it is said once, in one line"
_FOLDED = "RFC 9112 section 5.2: a server must refuse a folded field line, or unfold it; srvd has no setting to unfold"
_TUNNEL = "RFC 9110 section 9.3.6: CONNECT is for proxies; an origin server may do without"

STRICTER: dict[str, Stricter] = {
    "valid/005": Stricter(400, "RFC 9112 section 3.2: a request target has no fragment"),
    "valid/025": Stricter(400, _CODING_LINES),
    "valid/025_line": Stricter(501, _TWO_CODINGS),
    "valid/028": Stricter(400, "RFC 9112 section 5.1: white space before the colon must be refused"),
    "valid/029": Stricter(400, _CODING_LINES),
    "valid/030": Stricter(400, _CODING_LINES),
    "valid/099": Stricter(400, "RFC 9112 section 8: the connection ends 9315 bytes before its Content-Length"),
    "valid/compat_obs_fold": Stricter(400, _FOLDED),
    "valid/compat_obs_fold_huge": Stricter(400, _FOLDED),
    "valid/rfc9112_smuggle_gzip_chunked_01": Stricter(501, _TWO_CODINGS),
    "valid/rfc9112_smuggle_te_identity_chunked_01": Stricter(501, _TWO_CODINGS),
    "valid/rfc9112_target_absolute_https_01": Stricter(
        421, "RFC 9110 section 7.4: an https target on a connection that is not secured is misdirected"
    ),
    "valid/rfc9112_target_absolute_userinfo_01": Stricter(
        400, "RFC 9110 section 4.2.4: a user in a target should be taken for an error, it hides the authority"
    ),
    "valid/rfc9112_target_authority_connect_01": Stricter(501, _TUNNEL),
    "valid/rfc9112_target_authority_ipv6_01": Stricter(501, _TUNNEL),
}

DROPPED = {"valid/040_compat": "names with an underscore never reach the application: they collide with others there"}
"""Good requests that are served without some of the fields that gunicorn can be told to let through, and why."""


OTHERWISE = {
    # RFC 9110 section 9.1: methods are case-sensitive; gunicorn can be told to turn them into capitals.
    "valid/031compat": ("-blargh", "/foo"),
    # The root is asked about the whole server: guard.py says why.
    "valid/rfc9112_target_asterisk_options_01": ("OPTIONS", "/"),
}
"""Good requests of which the application is told something else than in gunicorn: method and path."""

TOLD_TO_REFUSE = {"invalid/040", "invalid/chunked_07"}
"""They are about a setting to refuse names with an underscore."""


NOT_BALANCED = {
    "valid/pp_03": "the PROXY protocol's own rule: nobody guesses whether its header is there, so it must be"
}
"""Served, but not where the PROXY protocol is spoken, and why."""


class Laxer(NamedTuple):
    """A request that gunicorn refuses and srvd serves, once it has a Host."""

    reason: str
    limits: Limits | None = None  # given these, it is refused as well


_OWN_LIMIT = "RFC 9110 section 5.4, RFC 9112 section 3: the limit is the server's to choose, and srvd's is higher"
_TOLD_LIMIT = "the case is about a limit that gunicorn was told; srvd's is higher"

LAXER: dict[str, Laxer] = {
    "invalid/003c": Laxer("RFC 9110 section 9.1: a method is any token, and -bl is one; the application knows its own"),
    "invalid/006": Laxer(_OWN_LIMIT, Limits(line=4080)),
    "invalid/007": Laxer(_OWN_LIMIT, Limits(field=8188)),
    "invalid/008": Laxer(_OWN_LIMIT, Limits(field=8188)),
    "invalid/010": Laxer(_TOLD_LIMIT, Limits(field=10)),
    "invalid/011": Laxer(_TOLD_LIMIT, Limits(fields=2)),
    "invalid/012": Laxer(_TOLD_LIMIT, Limits(field=96)),
    "invalid/017": Laxer(_OWN_LIMIT, Limits(field=8188)),
    "invalid/limit_header_default_01": Laxer(_OWN_LIMIT, Limits(field=8188)),
    "invalid/rfc9112_leading_crlf_02": Laxer(
        "RFC 9112 section 2.2: at least one empty line before a request is ignored"
    ),
}


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    cache = getattr(request.config, "cache", None)  # there is none with `-p no:cacheprovider`
    folder = tmp_path_factory.mktemp("corpus") if cache is None else cache.mkdir("gunicorn-corpus")
    try:
        return gunicorn_corpus.cases(gunicorn_corpus.fetch(folder))
    except gunicorn_corpus.CorpusMissing as missing:
        pytest.skip(f"the corpus could not be fetched: {missing}")


def test_the_corpus_is_the_one_that_the_exceptions_are_named_for(cases: list[Case]) -> None:
    good = {case.name for case in cases if case.valid}
    bad = {case.name for case in cases if not case.valid}
    assert (len(good), len(bad)) == (62, 81)
    assert {*STRICTER, *DROPPED, *OTHERWISE, *NOT_BALANCED} <= good
    assert set(LAXER) | TOLD_TO_REFUSE <= bad


def test_every_good_request_is_served_as_the_corpus_expects_it(cases: list[Case], starter: Starter) -> None:
    srvd = starter(config=CONFIG, code=APP)
    wrong: dict[str, str] = {}
    for case in cases:
        if case.valid:
            with _noting(wrong, case.name):
                _claim_good(_address(srvd, case), case)
    assert not wrong, _listed(wrong)


def test_no_bad_request_is_served(cases: list[Case], starter: Starter) -> None:
    """With a Host, too: what makes it a bad one shall be what the case is about."""
    srvd = starter(config=CONFIG, code=APP)
    wrong: dict[str, str] = {}
    for case in cases:
        if not case.valid:
            with _noting(wrong, case.name):
                _claim_bad(_address(srvd, case), case)
    assert not wrong, _listed(wrong)


def test_what_is_served_for_its_size_is_refused_by_a_lower_limit(cases: list[Case]) -> None:
    for case in cases:
        laxer = LAXER.get(case.name)
        if laxer and laxer.limits:
            data = _with_host(case)
            assert (whole(data).refused, whole(data, laxer.limits).refused in (414, 431)) == (0, True), case.name


def _address(srvd: Srvd, case: Case) -> tuple[str, int]:
    """Of the listener that is configured as the case has it."""
    if case.settings.get("forwarded_allow_ips"):
        return srvd.address("proxied")
    if case.settings.get("proxy_protocol") and case.name not in NOT_BALANCED:
        return srvd.address("balanced")
    if case.name in TOLD_TO_REFUSE:
        return srvd.address("strict")
    return srvd.address()


# -- claims about one case ----------------------------------------------------------------------------------------


def _claim_good(address: Any, case: Case) -> None:
    hosted = _with_host(case)
    if case.name in STRICTER:
        _claim_refused(address, hosted, {STRICTER[case.name].status})
        return
    for pieces in _cuts(hosted):
        answers = _ask(address, pieces)
        assert [status for status, _ in answers] == [200] * len(case.expected), answers
        for (_, body), expected in zip(answers, case.expected, strict=True):
            _claim_same(case, json.loads(body), expected)
    if case.data != hosted:
        # RFC 9112 section 3.2: as it is, its first request of HTTP/1.1 without a Host is refused, and ends it all.
        first = [_is_hostless(expected) for expected in case.expected].index(True)
        assert [status for status, _ in _ask(address, [case.data])] == [200] * first + [400]


def _claim_bad(address: Any, case: Case) -> None:
    if case.name in LAXER:
        assert [status for status, _ in _ask(address, [_with_host(case)])] == [200]
        return
    for data in {case.data, _with_host(case)}:
        _claim_refused(address, data, set(range(400, 600)))


def _claim_refused(address: Any, data: bytes, statuses: set[int]) -> None:
    """One answer that is a refusal, and nothing after it; or none at all."""
    for pieces in _cuts(data):
        answers = _ask(address, pieces)
        assert len(answers) <= 1, answers
        assert all(status in statuses for status, _ in answers), answers


def _claim_same(case: Case, told: dict[str, Any], expected: Expected) -> None:
    environ = told["environ"]
    method, path = OTHERWISE.get(case.name, (expected.method, expected.path))
    names = ("REQUEST_METHOD", "RAW_URI", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL")
    wanted = (method, expected.target, path, expected.query, expected.version)
    assert tuple(environ[name] for name in names) == wanted
    assert told["body"] == expected.body.decode("latin-1")
    assert [(name.upper(), value) for name, value in told["trailers"]] == expected.trailers
    fields = {name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))}
    assert fields == _fields(expected, dropped=case.name in DROPPED)


def _fields(expected: Expected, *, dropped: bool) -> dict[str, str]:
    """The fields as PEP 3333 has them: a chunked body has been decoded, so it has a length instead of a coding."""
    fields = {"HTTP_HOST": HOST} if _is_hostless(expected) else {}
    for name, value in expected.headers:
        if dropped and "_" in name:
            continue
        plain = name in ("CONTENT-LENGTH", "CONTENT-TYPE")
        key = ("" if plain else "HTTP_") + name.replace("-", "_")
        fields[key] = f"{fields[key]},{value}" if key in fields else value
    if fields.pop("HTTP_TRANSFER_ENCODING", None):
        fields["CONTENT_LENGTH"] = str(len(expected.body))
    return fields


def _is_hostless(expected: Expected) -> bool:
    return expected.version == "HTTP/1.1" and "HOST" not in dict(expected.headers)


# -- how they are asked -------------------------------------------------------------------------------------------


def _ask(address: Any, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    """Status and body of every answer up to the connection's end, which has to come."""
    answers = []
    with Client(address) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):  # refused, and closed, before all of it was sent
            for piece in pieces:
                client.send(piece)
            client.sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # closed without a word
            client.buffer = client.rest()
        while client.buffer:
            answer = client.answer()
            answers.append((answer.status, answer.body))
    return answers


def _cuts(data: bytes) -> list[list[bytes]]:
    """Whole, and in pieces that end within lines and within line ends."""
    step = max(len(data) // 12, 1)
    edges = [*range(0, len(data), step), len(data)]
    return [[data], [data[start:end] for start, end in pairwise(edges)]]


def _with_host(case: Case) -> bytes:
    """Its bytes, with a Host after each request line of HTTP/1.1 whose fields have none."""
    if case.valid and not any(_is_hostless(expected) for expected in case.expected):
        return case.data  # what looks like one is a body
    parts = case.data.split(b" HTTP/1.1\r\n")
    for at in range(1, len(parts)):
        if b"\nhost" not in b"\n" + parts[at].partition(b"\r\n\r\n")[0].lower():
            parts[at] = f"Host: {HOST}\r\n".encode() + parts[at]
    return b" HTTP/1.1\r\n".join(parts)


@contextmanager
def _noting(wrong: dict[str, str], name: str) -> Iterator[None]:
    """Remembers a claim that does not hold: all of them are told at once."""
    try:
        yield
    except (AssertionError, EOFError, OSError, LookupError, ValueError) as exc:
        wrong[name] = f"{type(exc).__name__}: {exc}"


def _listed(wrong: dict[str, str]) -> str:
    return f"{len(wrong)} differ:\n" + "\n".join(f"{name}: {what}" for name, what in wrong.items())
