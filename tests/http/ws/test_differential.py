"""srvd's WebSockets beside those of the package websockets: as its client, and as another server for the same bytes."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import CloseCode, Frame
from websockets.frames import Opcode as Kind
from websockets.http11 import Response
from websockets.protocol import State as Phase
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from srvd.http.ws.closing import State
from srvd.http.ws.extensions import Agreement, Deflate
from srvd.http.ws.limits import Limits
from srvd.http.ws.reader import Closed, Event, Pong
from srvd.http.ws.websocket import WebSocket
from tests.support.websocket_feed import (
    BINARY,
    CLOSE,
    MORE,
    PING,
    PONG,
    TEXT,
    compressed,
    deflated,
    frame,
    read,
    receive_all,
)
from tests.support.websocket_server import STAMP, inbound, judged

LIMIT = 100_000
FACTORIES = [
    ClientPerMessageDeflateFactory(server, client, server_bits, client_bits)
    for server in (False, True)
    for client in (False, True)
    for server_bits in (None, 9, 15)
    for client_bits in (None, True, 9, 15)
]

texts = st.text(max_size=300) | st.builds(lambda text, times: text * times, st.text(max_size=30), st.integers(1, 3000))
messages = (texts | st.binary(max_size=70_000)).filter(
    lambda message: len(message if isinstance(message, bytes) else message.encode()) <= LIMIT
)


class Peers(NamedTuple):
    """A client of websockets and the WebSocket of a server that have shaken hands."""

    client: ClientProtocol
    websocket: WebSocket


def connect(factory: ClientPerMessageDeflateFactory | None, deflate: Deflate | None) -> Peers:
    extensions = None if factory is None else [factory]
    protocols = [Subprotocol("one"), Subprotocol("two")]
    uri = parse_uri("ws://localhost/chat")
    client = ClientProtocol(uri, extensions=extensions, subprotocols=protocols, max_size=LIMIT)
    client.send_request(client.connect())
    request = inbound().receive(b"".join(client.data_to_send()))
    assert request is not None
    handshake = judged(request, deflate)
    client.receive_data(handshake.accept(STAMP, "two", [("X-A", "b")]))
    (response,) = client.events_received()
    assert isinstance(response, Response)
    assert client.handshake_exc is None
    assert client.subprotocol == "two"
    assert response.headers["X-A"] == "b"
    assert bool(client.extensions) == (handshake.agreement is not None)
    return Peers(client, WebSocket(Limits(message=LIMIT), handshake.agreement))


def sent(peers: Peers) -> bytes:
    return b"".join(peers.client.data_to_send())


def received(peers: Peers, data: bytes) -> list[str | bytes]:
    """The messages that the client finds in the bytes of the server."""
    peers.client.receive_data(data)
    frames = [one for one in peers.client.events_received() if isinstance(one, Frame) and one.opcode < Kind.CLOSE]
    assert all(one.fin for one in frames)
    return [bytes(one.data).decode() if one.opcode is Kind.TEXT else bytes(one.data) for one in frames]


def send(client: ClientProtocol, message: str | bytes, cuts: list[int]) -> None:
    """Sends a message in fragments, with pings and pongs between them."""
    data = message.encode() if isinstance(message, str) else message
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    parts = [data[start:end] for start, end in pairwise(places)] or [b""]
    first = client.send_text if isinstance(message, str) else client.send_binary
    first(parts[0], fin=len(parts) == 1)
    for number, part in enumerate(parts[1:], 2):
        client.send_ping(b"%d" % number)
        client.send_continuation(part, fin=number == len(parts))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(bounds)]


# -- as its client -----------------------------------------------------------------------------------------------

places = st.lists(st.integers(0, 1 << 17), max_size=6)


@given(
    st.sampled_from([None, *FACTORIES]),
    st.sampled_from([None, Deflate(threshold=0), Deflate(bits=9, threshold=100), Deflate(bits=15)]),
    st.lists(st.tuples(messages, places), max_size=5),
    places,
)
@settings(max_examples=150, deadline=None)
def test_a_client_and_the_server_understand_each_other(
    factory: ClientPerMessageDeflateFactory | None,
    deflate: Deflate | None,
    said: list[tuple[str | bytes, list[int]]],
    segments: list[int],
) -> None:
    peers = connect(factory, deflate)
    for message, cuts in said:
        send(peers.client, message, cuts)
    events: list[Event] = []
    for piece in cut(sent(peers), segments):
        events += receive_all(peers.websocket, piece)
    assert events == [message for message, _ in said]
    echoes = peers.websocket.pongs() + b"".join(
        peers.websocket.send(message) for message in events if not isinstance(message, (Pong, Closed))
    )
    assert received(peers, echoes) == events
    peers.client.send_close(1001, "bye")
    (closed,) = peers.websocket.receive(sent(peers))
    assert closed == Closed(1001, "bye")
    assert received(peers, peers.websocket.close()) == []
    peers.client.receive_eof()
    assert (peers.client.close_code, peers.client.close_reason) == (1001, "bye")
    assert peers.websocket.state is State.CLOSED


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1012, "restart"), (4999, "ä" * 60)])
def test_a_client_answers_the_servers_close(code: int, reason: str) -> None:
    peers = connect(None, None)
    send(peers.client, "under way", [4])
    assert received(peers, peers.websocket.close(code, reason)) == []
    assert peers.websocket.receive(sent(peers))[-1] == Closed(code, reason)
    peers.client.receive_eof()
    assert (peers.client.close_code, peers.client.close_reason) == (code, reason)
    assert peers.websocket.state is State.CLOSED


def test_a_client_is_pinged() -> None:
    peers = connect(None, None)
    assert received(peers, peers.websocket.ping(b"are you there")) == []
    assert peers.websocket.receive(sent(peers)) == [Pong(b"are you there")]


# -- as another server -----------------------------------------------------------------------------------------------


def good_frames(agreed: bool) -> st.SearchStrategy[bytes]:
    data = st.sampled_from([b"", b"a", "ä😀".encode(), b"x" * 125, b"x" * 126, b"y" * 70_000])
    kinds = [
        st.builds(frame, st.sampled_from([TEXT, BINARY]), data),
        st.builds(lambda kind, one, two: frame(kind, one, final=False) + frame(PING, b"p") + frame(MORE, two),
                  st.sampled_from([TEXT, BINARY]), data, data),
        st.builds(frame, st.sampled_from([PING, PONG]), data.filter(lambda one: len(one) < 126)),
    ]  # fmt: skip
    if agreed:
        kinds.append(st.builds(compressed, st.sampled_from([TEXT, BINARY]), data))
        kinds.append(
            st.builds(
                lambda one: frame(TEXT, deflated(one)[:5], final=False, bits=64) + frame(MORE, deflated(one)[5:]), data
            )
        )
    return st.one_of(kinds)


def odd_frames() -> st.SearchStrategy[bytes]:
    """Most of them break a rule, alone or where they come."""
    payload = st.sampled_from(
        [b"", b"\x03", b"\x03\xe8", b"\x03\xe8ok", b"\x03\xe8\xff", b"\x03\xed", b"\xff", b"a\xc3", b"z" * 126]
    )
    kinds = st.sampled_from([*range(16), CLOSE, CLOSE, MORE, TEXT])
    return st.builds(
        lambda kind, data, final, bits: frame(kind, data, final=final, bits=bits),
        kinds, payload, st.booleans(), st.sampled_from([0, 0, 0, 0x10, 0x20, 0x40]),
    )  # fmt: skip


@st.composite
def streams(draw: st.DrawFn, agreed: bool) -> bytes:
    parts = draw(st.lists(good_frames(agreed), max_size=6))
    for odd in draw(st.lists(odd_frames(), max_size=2)):
        parts.insert(draw(st.integers(0, len(parts))), odd)
    data = b"".join(parts)
    return data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data


class Theirs(NamedTuple):
    messages: list[str | bytes]
    pings: int
    code: int  # of the close frame that it sends; 0: none


def read_by_websockets(data: bytes, agreed: bool) -> Theirs:
    server = ServerProtocol(state=Phase.OPEN, max_size=LIMIT)
    if agreed:
        server.extensions = [PerMessageDeflate(False, False, 15, 15)]
    server.receive_data(data)
    messages: list[str | bytes] = []
    parts: list[bytes] = []
    text = False
    pings = 0
    for one in server.events_received():
        assert isinstance(one, Frame)
        pings += one.opcode is Kind.PING
        if one.opcode >= Kind.CLOSE:
            continue
        if one.opcode is not Kind.CONT:
            text, parts = one.opcode is Kind.TEXT, []
        parts.append(bytes(one.data))
        if one.fin:
            whole = b"".join(parts)
            try:
                messages.append(whole.decode() if text else whole)
            except UnicodeDecodeError:  # what a connection of websockets does about it, above its protocol
                return Theirs(messages, pings, CloseCode.INVALID_DATA)
    if isinstance(server.parser_exc, PayloadTooBig):
        return Theirs(messages, pings, CloseCode.MESSAGE_TOO_BIG)
    return Theirs(messages, pings, server.close_sent.code if server.close_sent else 0)


@pytest.mark.parametrize("agreed", [False, True])
@given(st.data(), places)
@settings(max_examples=100, deadline=None)
def test_both_servers_find_the_same_in_the_same_bytes(agreed: bool, data: st.DataObject, segments: list[int]) -> None:
    stream = data.draw(streams(agreed) | st.binary(max_size=300))
    agreement = Agreement() if agreed else None
    limits = Limits(message=LIMIT, pongs=1000)
    ours = read([stream], limits, agreement)
    assert read(cut(stream, segments), limits, agreement) == ours, "however it is cut"
    theirs = read_by_websockets(stream, agreed)
    found = [one for one in ours.events if not isinstance(one, (Pong, Closed))]
    end = ours.events[-1] if ours.events and isinstance(ours.events[-1], Closed) else None
    event(f"ends with {end.code if end else 'nothing'}")
    if agreed and end is not None and end.code == CloseCode.INVALID_DATA:
        # websockets takes compressed data that end within a block for whole, and goes on.
        assert found == theirs.messages[: len(found)]
        return
    assert found == theirs.messages
    if end is None:
        # websockets looks at a frame when it is whole, and takes a half one for nothing, unless that is too big.
        assert theirs.code in (0, CloseCode.MESSAGE_TOO_BIG)
    elif theirs.code != end.code:
        reason = why_not_the_same(theirs, end)
        assert reason, f"{theirs} but {end}"
        event(reason)


def why_not_the_same(theirs: Theirs, ours: Closed) -> str:
    """The reason for another end; "" if there is none."""
    if theirs.code == 0 and ours.violation:
        return "refused before the frame is whole"
    if not ours.violation and theirs.code == CloseCode.PROTOCOL_ERROR:
        return "a close frame between fragments (RFC 6455 section 5.4 allows control frames there)"
    if (theirs.code, ours.code) == (CloseCode.MESSAGE_TOO_BIG, CloseCode.PROTOCOL_ERROR):
        return "wrong in two ways: websockets looks at the length first"
    if {theirs.code, ours.code} <= {1002, 1007}:
        return "no UTF-8 within fragments, or cannot be inflated: noticed earlier, or named by another code"
    return ""
