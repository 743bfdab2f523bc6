"""Remembers orders by the key that the peer gave them: an order that comes twice is carried out once.

Bounded for each uid and in all; an order that was forgotten is carried out again. Pure.
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
    """An order that was accepted."""

    __slots__ = ("args", "method", "op", "outcome")

    def __init__(self, method: str, args: Mapping[str, Any], op: int) -> None:
        self.method = method
        self.args = _essence(args)
        self.op = op
        self.outcome: dict[str, Any] | None = None  # the reply without its id, once the operation has ended


class SavedKey(Record):
    """A remembered order as it is saved. Its outcome is found again by its operation."""

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
        """Returns the order that this user gave with this key, or None. Raises `Conflict`: it was another order."""
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

    def save(self) -> tuple[SavedKey, ...]:
        """Returns what the next program needs to recognize the same orders."""
        return tuple(
            SavedKey(uid, key, entry.method, msgpack.packb(entry.args), entry.op)
            for (uid, key), entry in self._entries.items()
        )

    def restore(self, saved: Sequence[SavedKey], outcome: Callable[[str, int], dict[str, Any] | None]) -> None:
        """Takes what `save` returned; `outcome` gives the reply to an operation that has ended, else None."""
        for uid, key, method, args, op in saved:
            entry = self._entries[uid, key] = Remembered(method, msgpack.unpackb(args), op)
            entry.outcome = outcome(method, op)

    def of_operation(self, op: int) -> list[Remembered]:
        return [entry for entry in self._entries.values() if entry.op == op]


def _essence(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without `wait`: the same order, waited for or not, is one order."""
    return {name: value for name, value in args.items() if name != "wait"}
