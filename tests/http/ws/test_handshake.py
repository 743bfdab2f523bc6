"""Claims about the opening handshake, judged from heads as srvd's own reader gives them."""

from __future__ import annotations

import pytest

from srvd.http.h1.refusal import Refusal, answer
from srvd.http.h1.response import ResponseInvalid
from srvd.http.ws.extensions import Deflate
from srvd.http.ws.handshake import Handshake, asks_for_websocket, judge
from srvd.http.ws.limits import Limits
from srvd.http.ws.websocket import WebSocket
from tests.support.http_feed import request
from tests.support.websocket_feed import TEXT, frame
from tests.support.websocket_server import STAMP, inbound

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = "Sec-WebSocket-Version: 13"
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\n" + STAMP + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)


def opening(*fields: str) -> bytes:
    return request(*UPGRADE, KEY, VERSION, *fields)


def judged(data: bytes, deflate: Deflate | None = None) -> Handshake | None:
    """None: the request is no opening handshake."""
    head = inbound().receive(data)
    assert head is not None
    fields = head.scope["fields"]
    return judge(head, fields, deflate) if asks_for_websocket(head, fields) else None


def accepted(data: bytes) -> Handshake:
    handshake = judged(data)
    assert handshake is not None
    return handshake


def test_the_example_of_the_rfc_is_answered_as_there() -> None:
    """RFC 6455 section 1.3."""
    handshake = accepted(opening("Origin: http://example.com", "Sec-WebSocket-Protocol: chat, superchat"))
    assert handshake.subprotocols == ("chat", "superchat")
    assert handshake.accept(STAMP) == ACCEPTED + b"\r\n"
    assert handshake.accept(STAMP, "chat") == ACCEPTED + b"Sec-WebSocket-Protocol: chat\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        ("Upgrade: WebSocket", "Connection: keep-alive, Upgrade", KEY, VERSION),
        ("upgrade: h2c, websocket", "CONNECTION: upgrade", KEY.replace("Sec-W", "sec-w"), VERSION),
        ("Upgrade: foo", "Upgrade: websocket", "Connection: keep-alive", "Connection: Upgrade", KEY, VERSION),
        (*UPGRADE, KEY, VERSION, "Content-Length: 0"),
        (*UPGRADE, KEY, VERSION, "Sec-WebSocket-Extensions: x-unknown; a=1, permessage-foo"),
        (*UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: "),
    ],
)  # fmt: skip
def test_handshakes_are_accepted_however_they_are_spelt(fields: tuple[str, ...]) -> None:
    assert accepted(request(*fields)).accept(STAMP) == ACCEPTED + b"\r\n"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (("Upgrade: websocket", KEY, VERSION), 400),
        (("Upgrade: websocket", "Connection: keep-alive", KEY, VERSION), 400),
        ((*UPGRADE, VERSION), 400),
        ((*UPGRADE, VERSION, "Sec-WebSocket-Key: "), 400),
        ((*UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"), 400),
        ((*UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWFi"), 400),
        ((*UPGRADE, VERSION, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ\xe9=="), 400),
        ((*UPGRADE, KEY, KEY, VERSION), 400),
        ((*UPGRADE, KEY), 426),
        ((*UPGRADE, KEY, "Sec-WebSocket-Version: 8"), 426),
        ((*UPGRADE, KEY, "Sec-WebSocket-Version: 013"), 426),
        ((*UPGRADE, KEY, VERSION, VERSION), 426),
        ((*UPGRADE, KEY, VERSION, "Content-Length: 5"), 400),
        ((*UPGRADE, KEY, VERSION, "Transfer-Encoding: chunked"), 400),
        ((*UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: a b"), 400),
        ((*UPGRADE, KEY, VERSION, "Sec-WebSocket-Protocol: chat, \xe9"), 400),
        ((*UPGRADE, KEY, VERSION, "Sec-WebSocket-Extensions: a;"), 400),
        ((*UPGRADE, KEY, VERSION, "Sec-WebSocket-Extensions: a b"), 400),
    ],
)  # fmt: skip
def test_a_bad_opening_handshake_is_refused(fields: tuple[str, ...], status: int) -> None:
    with pytest.raises(Refusal) as refused:
        judged(request(*fields))
    assert refused.value.status == status


@pytest.mark.parametrize(
    "data",
    [
        request(KEY, VERSION),
        request("Upgrade: h2c", "Connection: Upgrade", KEY, VERSION),
        request("Upgrade: websocketx", "Connection: Upgrade", KEY, VERSION),
        request("Connection: Upgrade, websocket", KEY, VERSION),
        request(*UPGRADE, KEY, VERSION, line="POST / HTTP/1.1"),
        request(*UPGRADE, KEY, VERSION, line="GET / HTTP/1.0"),
    ],
)
def test_a_request_that_asks_for_no_websocket_is_left_to_http(data: bytes) -> None:
    assert judged(data) is None


def test_a_client_of_another_version_is_told_which_one_is_spoken() -> None:
    """RFC 6455 section 4.4; RFC 9110 section 15.5.22: a 426 names the protocol in an Upgrade field."""
    lines = answer(426, STAMP).split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 426 Upgrade Required"
    assert {b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Connection: Upgrade, close"} <= set(lines)
    assert b"Connection: close" in answer(400, STAMP).split(b"\r\n")


def test_the_applications_headers_are_checked_and_those_of_the_connection_are_not_its_own() -> None:
    handshake = accepted(opening())
    data = handshake.accept(STAMP, headers=[("Set-Cookie", "a=1"), ("Connection", "close"), ("Content-Length", "3")])
    assert data == ACCEPTED.replace(b"Upgrade: websocket", b"Set-Cookie: a=1\r\nUpgrade: websocket") + b"\r\n"
    assert handshake.accept(STAMP, headers=[("Server", "mine")]).count(b"Server: ") == 1
    for headers in ([("A", "b\r\nC: d")], [("A b", "c")], [("Sec-WebSocket-Protocol", "x")],
                    [("sec-websocket-accept", "x")]):  # fmt: skip
        with pytest.raises(ResponseInvalid):
            handshake.accept(STAMP, headers=headers)


def test_a_subprotocol_that_was_not_offered_is_not_chosen() -> None:
    with pytest.raises(ResponseInvalid, match="did not offer"):
        accepted(opening("Sec-WebSocket-Protocol: chat")).accept(STAMP, "superchat")
    with pytest.raises(ResponseInvalid, match="did not offer"):
        accepted(opening()).accept(STAMP, "chat")


def test_subprotocols_of_several_lines_keep_their_order() -> None:
    handshake = accepted(opening("Sec-WebSocket-Protocol: b,a", "Sec-WebSocket-Protocol: ,c"))
    assert handshake.subprotocols == ("b", "a", "c")


def test_compression_is_agreed_on_only_if_both_sides_like_it() -> None:
    offer = opening("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    handshake = judged(offer, Deflate())
    assert handshake is not None
    assert handshake.accept(STAMP).endswith(
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n\r\n"
    )
    for data, deflate in ((offer, None), (opening(), Deflate())):
        handshake = judged(data, deflate)
        assert handshake is not None
        assert handshake.agreement is None
        assert b"Extensions" not in handshake.accept(STAMP)


@pytest.mark.parametrize("cut", [1, 40, len(opening()), len(opening()) + 3, len(opening()) + 9])
def test_frames_that_come_with_the_head_are_kept(cut: int) -> None:
    data = opening() + frame(TEXT, b"early") + frame(TEXT, b"more")
    reader = inbound()
    head = reader.receive(data[:cut])
    if head is None:
        head, cut = reader.receive(data[cut:]), len(data)
    assert head is not None
    assert judge(head, head.scope["fields"], None).key
    websocket = WebSocket(Limits(), None)
    events = websocket.receive(bytes(reader.rest)) + websocket.receive(data[cut:])
    assert events == ["early", "more"]
