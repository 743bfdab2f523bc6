"""`Turn`: one call of `Supervisor.handle`, as it is passed to every function that decides something.

Decides nothing and outlives no call. Pure.
"""

from __future__ import annotations

from srvd.core.actions import Action, Note
from srvd.core.event_names import EventName

__all__ = ["Turn"]


class Turn:
    """The time of the event and the actions that were decided so far, in order."""

    __slots__ = ("now", "out")

    def __init__(self, now: float) -> None:
        self.now = now
        self.out: list[Action] = []

    def do(self, action: Action) -> None:
        self.out.append(action)

    def note(self, name: EventName, text: str, **fields: str | int | float) -> None:
        """Logs the text and tells it to watchers. `fields`: those that `EVENTS` has for the name."""
        self.out.append(Note(name, text, tuple(fields.items())))
