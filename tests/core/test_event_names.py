"""Claims about the events that watchers are told: each name has its meaning, and each event the fields of its name."""

from __future__ import annotations

import pytest

from srvd.core.actions import Action, Note
from srvd.core.event_names import EVENTS, EventName
from srvd.core.events import Event
from srvd.core.model import Kind
from srvd.core.supervisor import Supervisor
from srvd.quoting import MARK
from srvd.wire.commands import TOPICS
from tests.core.test_transcripts import FOLDER, NAMES, replayed

RARE = {
    EventName.DAEMON_ADOPTED,
    EventName.WORKER_LEFT_PROCESSES,
    EventName.GENERATION_LEFT_PROCESSES,
}
"""Names that no transcript tells."""


@pytest.fixture(scope="module")
def told() -> list[Note]:
    """Every note of every transcript."""
    found: list[Note] = []
    with pytest.MonkeyPatch.context() as patch:
        handle = Supervisor.handle

        def heard(self: Supervisor, event: Event, now: float) -> list[Action]:
            actions = handle(self, event, now)
            found.extend(action for action in actions if isinstance(action, Note))
            return actions

        patch.setattr(Supervisor, "handle", heard)
        for name in NAMES:
            replayed(name, (FOLDER / f"{name}.txt").read_text())
    return found


def test_every_name_has_its_meaning_and_a_topic_that_can_be_watched() -> None:
    assert set(EVENTS) == set(EventName)
    assert {name.topic for name in EventName} == set(TOPICS)
    assert len({about.meaning for about in EVENTS.values()}) == len(EventName)


def test_an_event_has_the_fields_of_its_name(told: list[Note]) -> None:
    for note in told:
        assert [name for name, _ in note.fields] == EVENTS[note.name].fields.split(), note


def test_an_event_quotes_the_application_only_if_its_name_says_so(told: list[Note]) -> None:
    quoting = {note.name for note in told if MARK.decode() in note.text}
    assert quoting
    assert quoting <= {name for name, about in EVENTS.items() if about.quotes}


def test_an_event_of_an_operation_is_named_by_its_kind(told: list[Note]) -> None:
    names = {note.public_name for note in told}
    assert {"start.done", "reload.asked", "reload.committed", "reload.failed", "reload.rolled_back"} <= names
    kinds = {kind.value for kind in Kind}
    assert not kinds & set(TOPICS)
    assert {name.partition(".")[0] for name in names} <= kinds | set(TOPICS)


def test_nearly_every_name_is_told_by_a_transcript(told: list[Note]) -> None:
    assert set(EventName) - {note.name for note in told} == RARE
