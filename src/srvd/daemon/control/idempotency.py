"""Remembers orders by the key their asker gave them: asked twice, done once, answered alike.

Bounded for each uid and over all; what was forgotten is done anew. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack

from srvd.errors import Conflict
from srvd.record import Record

__all__ = ["IdempotencyKeys", "Remembered", "SavedKey"]

MOST_OF_UID = 64
MOST = 256


class Remembered:
    """One order that was accepted."""

    __slots__ = ("args", "method", "op", "outcome")

    def __init__(self, method: str, args: Mapping[str, Any], op: int) -> None:
        self.method = method
        self.args = _essence(args)
        self.op = op
        self.outcome: dict[str, Any] | None = None  # the reply, once the operation has ended; its id is the asker's


class SavedKey(Record):
    """One of them as it is handed over. The outcome is told anew from its operation."""

    uid: int
    key: str
    method: str
    args: bytes  # msgpack
    op: int


class IdempotencyKeys:
    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[tuple[int, str], Remembered] = {}  # the longest unused first

    def find(self, uid: int, key: str, method: str, args: Mapping[str, Any]) -> Remembered | None:
        """What this user asked for under this key. Raises `Conflict` when that was something else."""
        entry = self._entries.pop((uid, key), None) if key else None
        if entry is None:
            return None
        self._entries[uid, key] = entry
        if (entry.method, entry.args) != (method, _essence(args)):
            raise Conflict(
                f"call {method}: the key {key!r} was used for another request ({entry.method}); nothing was done",
                hint="use a new idem key for a new request",
            )
        return entry

    def remember(self, uid: int, key: str, entry: Remembered) -> None:
        self._entries[uid, key] = entry
        of_uid = [known for known in self._entries if known[0] == uid]
        if len(of_uid) > MOST_OF_UID:
            del self._entries[of_uid[0]]
        elif len(self._entries) > MOST:
            del self._entries[next(iter(self._entries))]

    def carry(self) -> tuple[SavedKey, ...]:
        """What another program needs to know the same orders again."""
        return tuple(
            SavedKey(uid, key, entry.method, msgpack.packb(entry.args), entry.op)
            for (uid, key), entry in self._entries.items()
        )

    def resume(self, kept: Sequence[SavedKey], outcome: Callable[[str, int], dict[str, Any] | None]) -> None:
        """Go on with what `carry` told; `outcome` is the reply to a method whose operation has ended, else None."""
        for uid, key, method, args, op in kept:
            entry = self._entries[uid, key] = Remembered(method, msgpack.unpackb(args), op)
            entry.outcome = outcome(method, op)

    def of_operation(self, op: int) -> list[Remembered]:
        return [entry for entry in self._entries.values() if entry.op == op]


def _essence(args: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the asker waits makes no other request."""
    return {name: value for name, value in args.items() if name != "wait"}
