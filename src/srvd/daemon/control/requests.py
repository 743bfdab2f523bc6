"""Handles requests: checks one, asks the backend, waits for the operation, and answers with its outcome.

Knows no socket and no timer: the server calls `expire` when a deadline may have passed. Never blocks.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from srvd.core.model import Level
from srvd.daemon.control import event_log, idempotency
from srvd.daemon.control.connection import ControlConnection
from srvd.daemon.control.idempotency import IdempotencyKeys, Remembered
from srvd.daemon.control.peers import Peer
from srvd.daemon.control.subscribers import Subscribers
from srvd.errors import (
    BadArgs,
    BadFrame,
    Busy,
    Cancelled,
    Conflict,
    Deadline,
    InternalError,
    PermissionRefused,
    ShuttingDown,
    SrvdError,
    from_wire,
)  # fmt: skip
from srvd.record import Record
from srvd.wire import messages
from srvd.wire.commands import COMMANDS, VIEWER, Command, command, may
from srvd.wire.validate import check

__all__ = ["Backend", "Log", "RequestHandler", "RequestsState"]

Log = Callable[[Level, str, Mapping[str, object]], None]

ENDED = ("done", "failed", "rolled_back", "cancelled")
"""States of an operation that do not change any more (core.model.OpState)."""


class Backend(Protocol):
    """The daemon as the control socket knows it. Each call returns at once."""

    def query(self, method: str, args: dict[str, Any], peer: Peer) -> dict[str, Any]:
        """Returns the answer to a question. Raises `SrvdError`."""

    def ask(self, method: str, args: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        """Asks a question that takes time: calls `reply` once, later. Raises `SrvdError` instead."""

    def order(self, method: str, args: dict[str, Any], peer: Peer) -> int:
        """Returns the operation that the order opened, joined, or (op.cancel) names. Raises `SrvdError`: refused."""

    def operation(self, op: int) -> dict[str, Any]:
        """Returns the operation as a map. Raises `NoSuchOperation`."""


class Wait(Record):
    """A request that is answered when its operation ends."""

    number: int  # of the request
    method: str
    op: int
    due: float


class RequestsState(Record):
    """Events and idempotency keys, as they are saved; operations are in the core's state."""

    events: event_log.EventLogState
    idems: tuple[idempotency.SavedKey, ...]


class RequestHandler:
    __slots__ = ("_asked", "_backend", "_idems", "_log", "_most_waits", "_waits", "stoppers", "subscribers")

    def __init__(self, backend: Backend, log: Log, most_waits: int) -> None:
        self._backend = backend
        self._log = log
        self._most_waits = most_waits
        self._waits: dict[ControlConnection, dict[int, Wait]] = {}
        self._asked: dict[ControlConnection, int] = {}  # the id of its `ask` that is under way: one at a time
        self._idems = IdempotencyKeys()
        self.stoppers: set[ControlConnection] = set()  # peers that ordered a stop, and wait for the end of the process
        self.subscribers = Subscribers()

    def receive(self, connection: ControlConnection, message: Mapping[str, Any], now: float) -> None:
        """Handles one message. Raises `BadFrame` when it is none of this protocol."""
        said = messages.read_message(message)
        if isinstance(said, messages.Cancel):
            self._take_back(connection, said.id)
            return
        try:
            if said.id in self._waits.get(connection, ()) or self._asked.get(connection) == said.id:
                raise BadArgs(f"call {said.method}: the id {said.id} is that of a request that still waits")
            self._answer(connection, said, now)
        except InternalError as problem:
            self._log(Level.ERROR, problem.message, {"method": said.method})
            self._reply(connection, messages.error(said.id, problem))
        except SrvdError as problem:
            self._reply(connection, messages.error(said.id, problem))
        except Exception as exc:
            text = traceback.format_exc()
            self._log(Level.ERROR, f"call {said.method}: a bug in srvd: {exc!r}", {"traceback": text})
            self._reply(connection, messages.error(said.id, InternalError(f"call {said.method}: {exc!r}; see the log")))
            connection.finish()

    def is_engaged(self, connection: ControlConnection) -> bool:
        return connection in self._waits or connection in self._asked or connection in self.subscribers

    def due(self, connection: ControlConnection) -> float:
        """Returns the first deadline of this peer's waiting requests."""
        return min((wait.due for wait in self._waits.get(connection, {}).values()), default=math.inf)

    def expire(self, connection: ControlConnection, now: float) -> None:
        """Answers the requests whose deadline has passed; their operations go on."""
        for wait in list(self._waits.get(connection, {}).values()):
            if wait.due <= now:
                self._end_wait(connection, wait, _outlasted(wait, self._operation(wait.op)))

    def forget(self, connection: ControlConnection) -> None:
        """Drops all about a connection that has ended. Its operations go on."""
        self._waits.pop(connection, None)
        self._asked.pop(connection, None)
        self.subscribers.end(connection)
        self.stoppers.discard(connection)

    def progress(self, op: int, phase: str, done: int, total: int, message: str) -> None:
        for connection, wait in self._waiting_for(op):
            if connection.has_room:
                self._reply(connection, messages.progress(wait.number, op, phase, done, total, message))

    def settle(self, op: int) -> None:
        """Answers all requests that wait for the operation, which has ended."""
        operation = self._operation(op)
        for entry in self._idems.of_operation(op):
            entry.outcome = outcome(entry.method, operation)
        for connection, wait in self._waiting_for(op):
            self._end_wait(connection, wait, outcome(wait.method, operation))

    def save(self) -> RequestsState:
        """Returns what the next program needs to give the same answers."""
        return RequestsState(self.subscribers.events.save(), self._idems.save())

    def restore(self, memory: RequestsState) -> None:
        """Takes what `save` returned."""
        self.subscribers.events.restore(memory.events)
        self._idems.restore(memory.idems, self._outcome)

    def _outcome(self, method: str, op: int) -> dict[str, Any] | None:
        operation = self._operation(op)
        return outcome(method, operation) if operation["state"] in ENDED else None

    def close(self, reason: str) -> None:
        """Answers all requests that still wait, with what is known: the daemon ends."""
        for connection, number in self._asked.items():
            self._reply(connection, messages.error(number, ShuttingDown(f"the daemon ends ({reason})")))
        self._asked.clear()
        for op in {wait.op for waits in self._waits.values() for wait in waits.values()}:
            operation = self._operation(op)
            if operation["state"] in ENDED:
                self.settle(op)
                continue
            gone = ShuttingDown(f"operation {op}: the daemon ends ({reason}) before the operation does")
            for connection, wait in self._waiting_for(op):
                self._end_wait(connection, wait, {"type": "err", "error": gone.to_wire()})

    def _answer(self, connection: ControlConnection, said: messages.Request, now: float) -> None:
        entry = command(said.method)
        if not may(connection.peer.role, entry):
            raise self._refused(connection.peer, entry)
        args = check(entry, said.args)
        if entry.streams:
            result = self.subscribers.begin(connection, said.id, args)
            self._reply(connection, messages.ok(said.id, result))
            self.subscribers.pump(connection)
        elif entry.name == "op.wait":
            seconds = min(said.deadline or math.inf, args["timeout"] or math.inf)
            self._wait(connection, Wait(said.id, entry.name, args["id"], now + seconds))
        elif entry.name == "op.show":
            self._reply(connection, messages.ok(said.id, {"operation": self._backend.operation(args["id"])}))
        elif entry.takes_time:
            self._ask(connection, said, args)
        elif entry.changes:
            self._order(connection, said, args, now)
        else:
            self._reply(connection, messages.ok(said.id, self._backend.query(entry.name, args, connection.peer)))

    def _ask(self, connection: ControlConnection, said: messages.Request, args: dict[str, Any]) -> None:
        if connection in self._asked:
            raise Busy(f"call {said.method}: a question of this connection is being answered")
        if said.deadline:
            args["timeout"] = min(args["timeout"] or said.deadline, said.deadline)
        self._asked[connection] = said.id
        try:
            self._backend.ask(said.method, args, partial(self._answered, connection, said.id))
        except BaseException:
            self._asked.pop(connection, None)
            raise
        shown = " ".join(f"{name}={value}" for name, value in said.args.items())
        text = f"{said.method} {shown}".rstrip() + f", asked by {connection.peer.actor()}"
        self._log(Level.INFO, text, _fields(connection.peer, said.method))

    def _answered(self, connection: ControlConnection, number: int, result: dict[str, Any]) -> None:
        if self._asked.get(connection) == number:  # else the peer has left, or cancelled the question
            del self._asked[connection]
            self._reply(connection, messages.ok(number, result))

    def _refused(self, peer: Peer, entry: Command) -> PermissionRefused:
        if entry.changes:
            self._log(Level.WARNING, f"{entry.name} refused: {peer.actor()} is {peer.role}", _fields(peer, entry.name))
        return PermissionRefused(
            f"call {entry.name}: it needs the role {entry.role}, and {peer.name} (uid {peer.uid}) is {peer.role}",
            hint="the setting `roles` of [control] gives roles to users and groups",
        )

    def _order(self, connection: ControlConnection, said: messages.Request, args: dict[str, Any], now: float) -> None:
        peer, waits = connection.peer, args.get("wait", True)
        if waits:
            self._check_room(connection)
        known = self._idems.find(peer.uid, said.idem, said.method, args)
        if known is not None and known.outcome is not None:
            self._reply(connection, {**known.outcome, "id": said.id})
            return
        op = known.op if known is not None else self._place(peer, said, args)
        if said.method == "stop" and waits:
            self.stoppers.add(connection)
        if waits:
            self._wait(connection, Wait(said.id, said.method, op, now + (said.deadline or math.inf)))
        else:
            self._reply(connection, messages.ok(said.id, {"operation": self._backend.operation(op)}))

    def _check_cancel(self, peer: Peer, op: int) -> None:
        """Checks that the peer may order what it cancels. Raises `PermissionRefused`, `NoSuchOperation`."""
        kind = self._backend.operation(op).get("kind")
        ordered = next((entry for entry in COMMANDS if entry.name == kind), None)
        if ordered is not None and not may(peer.role, ordered):
            raise self._refused(peer, ordered._replace(name=f"op.cancel of {kind}"))

    def _place(self, peer: Peer, said: messages.Request, args: dict[str, Any]) -> int:
        """Gives the order to the backend, and logs a refusal with the user.

        The core logs an accepted order itself; the line with the arguments as they came is for the level debug.
        """
        shown = " ".join(f"{name}={value}" for name, value in said.args.items())
        fields = {**_fields(peer, said.method), "args": shown}
        try:
            if said.method == "op.cancel":
                self._check_cancel(peer, args["id"])
            op = self._backend.order(said.method, args, peer)
        except SrvdError as problem:
            text = f"{said.method} {shown}".rstrip() + f", asked by {peer.actor()}: refused: {problem.message}"
            self._log(Level.WARNING, text, {**fields, "code": problem.code})
            raise
        text = f"{said.method} {shown}".rstrip() + f", asked by {peer.actor()}: operation {op}"
        self._log(Level.DEBUG, text, {**fields, "operation": op})
        if said.idem:
            entry = Remembered(said.method, args, op)
            self._idems.remember(peer.uid, said.idem, entry)
            entry.outcome = self._outcome(said.method, op)
        return op

    def _wait(self, connection: ControlConnection, wait: Wait) -> None:
        """Answers when the operation has ended, which it may have already. Raises `NoSuchOperation`, `Busy`."""
        operation = self._backend.operation(wait.op)
        if operation["state"] in ENDED:
            self._reply(connection, {**outcome(wait.method, operation), "id": wait.number})
            return
        self._check_room(connection)
        self._waits.setdefault(connection, {})[wait.number] = wait
        phase = str(operation.get("phase") or operation["state"])
        self._reply(connection, messages.progress(wait.number, wait.op, phase, 0, 0, ""))

    def _check_room(self, connection: ControlConnection) -> None:
        if len(self._waits.get(connection, ())) >= self._most_waits:
            raise Busy(f"wait for an operation: {self._most_waits} requests of this connection wait already")

    def _take_back(self, connection: ControlConnection, number: int) -> None:
        wait = self._waits.get(connection, {}).get(number)
        if wait is not None:
            gone = Cancelled(
                f"{wait.method}: no longer waited for; operation {wait.op} goes on", detail={"operation": wait.op}
            )
            self._end_wait(connection, wait, {"type": "err", "error": gone.to_wire()})
        elif self._asked.get(connection) == number:
            del self._asked[connection]
            self._reply(connection, messages.error(number, Cancelled("no longer waited for, as asked")))
        elif self.subscribers.end(connection, number):
            self._reply(connection, messages.error(number, Cancelled("watch: ended, as asked")))
        # Else the answer has been sent.

    def _end_wait(self, connection: ControlConnection, wait: Wait, reply: dict[str, Any]) -> None:
        waits = self._waits.get(connection, {})
        waits.pop(wait.number, None)
        if not waits:
            self._waits.pop(connection, None)
        self._reply(connection, {**reply, "id": wait.number})

    def _waiting_for(self, op: int) -> list[tuple[ControlConnection, Wait]]:
        return [
            (connection, wait) for connection, waits in self._waits.items() for wait in waits.values() if wait.op == op
        ]

    def _operation(self, op: int) -> dict[str, Any]:
        """Returns the operation as a map; one that fell out of the history is a failed one with that error."""
        try:
            return self._backend.operation(op)
        except SrvdError as problem:
            return {"id": op, "state": "failed", "error": problem.to_wire()}

    def _reply(self, connection: ControlConnection, message: dict[str, Any]) -> None:
        if connection.peer.role == VIEWER:
            message = messages.public(message)
        try:
            connection.send(message)
        except BadFrame as problem:
            hint = "ask for less: many commands take limit and offset"
            connection.send(messages.error(message["id"], BadArgs(f"answer: {problem.message}", hint=hint)))


def outcome(method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the reply, without its id, to a request that waited for this operation."""
    state, op = operation["state"], operation["id"]
    if method == "op.cancel" and state == "done":
        late = Conflict(f"cancel operation {op}: it was done before it could be cancelled", detail={"operation": op})
        return {"type": "err", "error": late.to_wire()}
    if state == "done" or method == "op.cancel":
        return {key: value for key, value in messages.ok(op, {"operation": dict(operation)}).items() if key != "id"}
    problem = from_wire(operation.get("error") or Cancelled(f"operation {op} was cancelled").to_wire())
    problem.detail.update(operation=op, state=state)
    return {"type": "err", "error": problem.to_wire()}


def _outlasted(wait: Wait, operation: Mapping[str, Any]) -> dict[str, Any]:
    problem = Deadline(
        f"{wait.method}: operation {wait.op} is not over yet; it goes on",
        hint=f"follow it with `srvctl op wait {wait.op}`",
        detail={"operation": wait.op, "state": operation["state"]},
    )
    return {"type": "err", "error": problem.to_wire()}


def _fields(peer: Peer, method: str) -> dict[str, object]:
    return {"method": method, "uid": peer.uid, "pid": peer.pid, "user": peer.name}
