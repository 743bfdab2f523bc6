"""The closing handshake as a total table: what each trigger does to a WebSocket's state (RFC 6455 section 7.1).

No frames here, only what follows what; `websocket.py` says what is sent on the way. Pure.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["READING", "WRITING", "ImpossibleStep", "NoTransition", "State", "Trigger", "next_state"]


class State(Enum):
    """How far a WebSocket is on the way to its end."""

    OPEN = "open"  # both sides send
    CLOSE_RECEIVED = "close received"  # the client will send nothing more; the application may, until it answers
    FAILED = "failed"  # the client broke a rule and is not read any more; the close frame that says so is not sent yet
    CLOSE_SENT = "close sent"  # what the client still sends is dropped, up to its close frame
    CLOSED = "closed"  # the last frame was sent: the server ends the connection (RFC 6455 section 7.1.1)
    LOST = "lost"  # the connection has ended before that, or has to, with no frame


class Trigger(Enum):
    """What can happen to a WebSocket."""

    CLOSE = "close"  # decided: a close frame is sent
    PEER_CLOSE = "peer close"  # the client's close frame came
    VIOLATION = "violation"  # the client broke a rule
    END = "end"  # the connection has ended


class NoTransition(Enum):
    """Cells without a next state."""

    LATE = "late"  # the application closes what is closed already
    IMPOSSIBLE = "impossible"  # frames are read where none is


class ImpossibleStep(AssertionError):
    """A cell that nothing can reach was reached; the message names both sides."""


def _table() -> dict[tuple[State, Trigger], State | NoTransition]:
    s, t = State, Trigger
    # Whatever is not named below: a close frame comes too late, and what is not read has no frames.
    table: dict[tuple[State, Trigger], State | NoTransition] = {
        (state, trigger): NoTransition.LATE if trigger is t.CLOSE else NoTransition.IMPOSSIBLE
        for state in s
        for trigger in t
    }
    table |= {
        (s.OPEN, t.CLOSE): s.CLOSE_SENT,
        (s.OPEN, t.PEER_CLOSE): s.CLOSE_RECEIVED,
        (s.OPEN, t.VIOLATION): s.FAILED,
        (s.CLOSE_RECEIVED, t.CLOSE): s.CLOSED,
        (s.FAILED, t.CLOSE): s.CLOSED,  # section 7.1.7: no answer is waited for
        (s.CLOSE_SENT, t.PEER_CLOSE): s.CLOSED,
        (s.CLOSE_SENT, t.VIOLATION): s.LOST,  # a second close frame must not be sent
    }
    for state in s:
        table[state, t.END] = s.CLOSED if state is s.CLOSED else s.LOST
    return table


TABLE: dict[tuple[State, Trigger], State | NoTransition] = _table()

READING = frozenset({State.OPEN, State.CLOSE_SENT})
"""States in which frames of the client are read."""

WRITING = frozenset({State.OPEN, State.CLOSE_RECEIVED, State.FAILED})
"""States in which the application may send: its answers to messages that came before the end."""


def next_state(state: State, trigger: Trigger) -> State | None:
    """Returns the state after the trigger; None if the application closes too late. Raises `ImpossibleStep`."""
    cell = TABLE[state, trigger]
    if cell is NoTransition.IMPOSSIBLE:
        msg = f"a WebSocket in state {state.name} cannot meet {trigger.name}"
        raise ImpossibleStep(msg)
    return cell if isinstance(cell, State) else None
