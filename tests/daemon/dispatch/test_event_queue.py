"""Claims about the queue of events: their order, and that none is lost when it comes early or meets a bug."""

from __future__ import annotations

import pytest

from srvd.core.events import AnswersCounted, Event, LogReopened, Tick
from srvd.daemon.dispatch.event_queue import EventQueue


def test_events_wait_for_a_handler_and_are_handled_in_their_order() -> None:
    queue, handled = EventQueue(), list[Event]()
    queue.put(Tick())
    queue.put(LogReopened("full"))
    assert handled == []
    settled: list[int] = []
    queue.serve(handled.append, lambda: settled.append(len(handled)))
    assert handled == [Tick(), LogReopened("full")]
    assert settled == [2]


def test_what_an_event_causes_is_handled_after_it_and_not_inside() -> None:
    queue, said = EventQueue(), list[str]()

    def handle(event: Event) -> None:
        said.append(f"begin {type(event).__name__}")
        if isinstance(event, Tick):
            queue.put(AnswersCounted("web", ()))
        said.append(f"end {type(event).__name__}")

    queue.serve(handle, lambda: said.append("settled"))
    queue.put(Tick())
    assert said == ["begin Tick", "end Tick", "begin AnswersCounted", "end AnswersCounted", "settled"]


def test_a_bug_in_one_event_leaves_the_next_one_its_turn() -> None:
    queue, settled = EventQueue(), list[bool]()

    def handle(event: Event) -> None:
        if isinstance(event, Tick):
            raise ZeroDivisionError

    queue.serve(handle, lambda: settled.append(True))
    with pytest.raises(ZeroDivisionError):
        queue.put(Tick())
    queue.put(LogReopened(""))
    assert settled == [True, True]
