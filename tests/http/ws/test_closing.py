"""Claims about the closing handshake: the table is total, and each end is told to the application and to the client."""

from __future__ import annotations

from itertools import product

import pytest

from srvd.http.ws.closing import (
    READING,
    TABLE,
    WRITING,
    ImpossibleStep,
    NoTransition,
    State,
    Trigger,
    next_state,
)
from srvd.http.ws.codes import close_payload
from srvd.http.ws.frames import Opcode, write_frame
from srvd.http.ws.limits import Limits
from srvd.http.ws.reader import Closed, Pong
from srvd.http.ws.websocket import NotOpen, WebSocket
from tests.support.websocket_feed import BINARY, CLOSE, MORE, PING, PONG, TEXT, frame, one_by_one


def opened() -> WebSocket:
    return WebSocket(Limits(), None)


def state_of(websocket: WebSocket) -> State:
    return websocket.state  # as the result of a call: mypy takes an attribute to stay what it was


def closing(code: int, reason: str = "") -> bytes:
    return write_frame(Opcode.CLOSE, close_payload(code, reason))


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_table_is_total() -> None:
    assert set(TABLE) == set(product(State, Trigger))
    assert all(isinstance(cell, (State, NoTransition)) for cell in TABLE.values())


def test_every_state_is_reached_from_open_and_comes_to_an_end() -> None:
    def reachable(start: State) -> set[State]:
        found = {start}
        while new := {cell for (state, _), cell in TABLE.items() if state in found and isinstance(cell, State)} - found:
            found |= new
        return found

    assert reachable(State.OPEN) == set(State)
    assert all(reachable(state) & {State.CLOSED, State.LOST} for state in State)
    assert reachable(State.CLOSED) == {State.CLOSED}
    assert reachable(State.LOST) == {State.LOST}


def test_only_what_is_read_can_meet_a_frame_and_only_what_is_written_can_be_closed() -> None:
    met = {state for (state, trigger), cell in TABLE.items()
           if trigger in (Trigger.PEER_CLOSE, Trigger.VIOLATION) and cell is not NoTransition.IMPOSSIBLE}  # fmt: skip
    closed = {state for state in State if isinstance(TABLE[state, Trigger.CLOSE], State)}
    assert met == READING
    assert closed == WRITING


def test_a_step_that_nothing_can_cause_names_both_sides() -> None:
    with pytest.raises(ImpossibleStep, match="FAILED cannot meet PEER_CLOSE"):
        next_state(State.FAILED, Trigger.PEER_CLOSE)
    assert next_state(State.CLOSED, Trigger.CLOSE) is None


# -- the client ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "told"), [(b"", Closed(1005, "")), (b"\x03\xe9", Closed(1001, "")),
                                            (b"\x0f\xa0n\xc3\xb6", Closed(4000, "nö"))])  # fmt: skip
def test_a_client_that_closes_is_answered_with_its_own_code(sent: bytes, told: Closed) -> None:
    websocket = opened()
    assert websocket.receive(frame(CLOSE, sent)) == [told]
    assert state_of(websocket) is State.CLOSE_RECEIVED
    assert websocket.close(1011, "not said") == write_frame(Opcode.CLOSE, sent)
    assert state_of(websocket) is State.CLOSED
    assert websocket.end() is None


def test_the_application_may_answer_what_came_before_the_close() -> None:
    websocket = opened()
    assert websocket.receive(frame(TEXT, b"last") + frame(CLOSE)) == ["last", Closed(1005, "")]
    assert websocket.send("answer") == write_frame(Opcode.TEXT, b"answer")
    assert websocket.close() == write_frame(Opcode.CLOSE, b"")
    with pytest.raises(NotOpen, match="'closed'"):
        websocket.send("too late")
    with pytest.raises(NotOpen):
        websocket.ping()
    with pytest.raises(NotOpen):
        websocket.close()


def test_nothing_is_read_after_a_close() -> None:
    websocket = opened()
    websocket.receive(frame(CLOSE))
    assert websocket.receive(frame(PING, b"a") + frame(TEXT, b"b") + b"\xff") == []
    assert websocket.pongs() == b""
    websocket.close()
    assert websocket.receive(frame(CLOSE)) == []


def test_a_violation_is_told_to_both_sides_after_the_messages_before_it() -> None:
    websocket = opened()
    first, last = websocket.receive(frame(TEXT, b"good") + frame(TEXT, b"\xff") + frame(TEXT, b"not read"))
    assert (first, last) == ("good", Closed(1007, "a text message is not UTF-8", violation=True))
    assert state_of(websocket) is State.FAILED
    assert websocket.send("answer") == write_frame(Opcode.TEXT, b"answer")
    assert websocket.close() == closing(1007, "a text message is not UTF-8")
    assert state_of(websocket) is State.CLOSED
    assert websocket.receive(frame(CLOSE)) == []


def test_a_connection_that_ends_without_a_close_frame_is_1006() -> None:
    websocket = opened()
    assert websocket.receive(frame(TEXT, b"half")[:7]) == []
    assert websocket.end() == Closed(1006, "")
    assert state_of(websocket) is State.LOST
    assert websocket.end() is None
    with pytest.raises(NotOpen):
        websocket.send("a")


@pytest.mark.parametrize("data", [frame(CLOSE), frame(TEXT, b"\xff")])
def test_a_connection_that_ends_before_the_answer_was_sent_is_told_once(data: bytes) -> None:
    websocket = opened()
    assert len(websocket.receive(data)) == 1
    assert websocket.end() is None
    assert state_of(websocket) is State.LOST


# -- the server ends ---------------------------------------------------------------------------------------------------


def test_a_server_that_closes_waits_for_the_clients_close_frame() -> None:
    websocket = opened()
    assert websocket.close(1012, "restart") == closing(1012, "restart")
    assert state_of(websocket) is State.CLOSE_SENT
    assert websocket.receive(frame(CLOSE, b"\x03\xf4")) == [Closed(1012, "")]
    assert state_of(websocket) is State.CLOSED


@pytest.mark.parametrize("before", [b"", frame(TEXT, b"begun", final=False), frame(BINARY, b"x" * 300)[:100]],
                         ids=["nothing", "a fragment", "half a frame"])  # fmt: skip
def test_messages_are_dropped_after_the_servers_close_and_the_close_frame_is_found(before: bytes) -> None:
    websocket = opened()
    assert websocket.receive(before + frame(PING, b"a") if len(before) < 100 else before) == []
    websocket.close()
    assert websocket.pongs() == b""
    rest = frame(BINARY, b"x" * 300)[100:] if len(before) == 100 else b""
    late = frame(TEXT, b"\xff") + frame(MORE, b"late") + frame(BINARY, b"x" * 70_000) + frame(PING, b"b")
    events = []
    for piece in (rest, late, *one_by_one(late), frame(PONG, b"p"), frame(CLOSE, b"\x03\xe8")):
        events += websocket.receive(piece)
    assert events == [Pong(b"p"), Closed(1000, "")]
    assert websocket.pongs() == b""
    assert state_of(websocket) is State.CLOSED


def test_a_violation_after_the_servers_close_ends_the_connection_without_another_frame() -> None:
    websocket = opened()
    websocket.close()
    (event,) = websocket.receive(b"\x83\x80")
    assert isinstance(event, Closed)
    assert state_of(websocket) is State.LOST
    with pytest.raises(NotOpen):
        websocket.close()


def test_a_client_that_leaves_after_the_servers_close_is_1006() -> None:
    websocket = opened()
    websocket.close()
    assert websocket.end() == Closed(1006, "")


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70_000])
def test_codes_that_must_not_travel_are_refused_and_the_websocket_stays_open(code: int) -> None:
    websocket = opened()
    with pytest.raises(ValueError, match="no code"):
        websocket.close(code)
    assert state_of(websocket) is State.OPEN
    assert websocket.close(3000) == closing(3000)


def test_a_long_reason_is_cut_at_the_end_of_a_character() -> None:
    data = opened().close(1000, "€" * 60)
    assert data == b"\x88" + bytes((2 + 123,)) + b"\x03\xe8" + "€".encode() * 41
    assert len(opened().close(1000, "ä" * 60 + "€€")) == 2 + 2 + 123
    assert len(opened().close(1000, "a" + "ä" * 70)) == 2 + 2 + 123
    assert len(opened().close(1000, "ä" * 70)) == 2 + 2 + 122
    assert opened().close(1000, "\ud800").endswith(b"?")


def test_what_cannot_be_sent_leaves_the_websocket_open() -> None:
    websocket = opened()
    with pytest.raises(ValueError, match="at most 125"):
        websocket.ping(bytes(126))
    with pytest.raises(UnicodeEncodeError):
        websocket.send("\ud800")
    assert websocket.ping(b"!") == write_frame(Opcode.PING, b"!")
    assert websocket.receive(frame(PONG, b"!")) == [Pong(b"!")]
    assert repr(websocket) == "<WebSocket open>"
