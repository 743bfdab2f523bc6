"""What a request means: checks it, asks the backend, waits for the operation, answers with what became true.

Knows no socket and no timer: the server tells it when a deadline may have passed. Never waits itself.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from srvd.core.actions import Level
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

__all__ = ["Backend", "Log", "Memory", "RequestHandler"]

Log = Callable[[Level, str, Mapping[str, object]], None]

ENDED = ("done", "failed", "rolled_back", "cancelled")
"""States of an operation that do not change any more (core.model.OpState)."""


class Backend(Protocol):
    """The daemon, as the control socket sees it. Each call returns at once."""

    def query(self, method: str, args: dict[str, Any], peer: Peer) -> dict[str, Any]:
        """The result. Raises `SrvdError`."""

    def ask(self, method: str, args: dict[str, Any], reply: Callable[[dict[str, Any]], None]) -> None:
        """A question that takes time: `reply` is called once, later. Raises `SrvdError` instead."""

    def order(self, method: str, args: dict[str, Any], peer: Peer) -> int:
        """The operation that was opened, joined or (op.cancel) meant. Raises `SrvdError` when nothing will be done."""

    def operation(self, op: int) -> dict[str, Any]:
        """The operation's map. Raises `NoSuchOperation`."""


class Wait(Record):
    """A request that is answered when its operation ends."""

    number: int  # of the request
    method: str
    op: int
    due: float


class Memory(Record):
    """What the desk knows beside the operations, as it is handed over."""

    events: event_log.Events
    idems: tuple[idempotency.SavedKey, ...]


class RequestHandler:
    __slots__ = ("_asked", "_backend", "_idems", "_log", "_most_waits", "_waits", "stoppers", "watchers")

    def __init__(self, backend: Backend, log: Log, most_waits: int) -> None:
        self._backend = backend
        self._log = log
        self._most_waits = most_waits
        self._waits: dict[ControlConnection, dict[int, Wait]] = {}
        self._asked: dict[ControlConnection, int] = {}  # the number of its question that takes time: one at a time
        self._idems = IdempotencyKeys()
        self.stoppers: set[ControlConnection] = set()  # who asked for the daemon's end, and waits to see it
        self.watchers = Subscribers()

    def receive(self, link: ControlConnection, message: Mapping[str, Any], now: float) -> None:
        """Deal with one message. Raises `BadFrame` when the peer does not speak our language."""
        said = messages.read_message(message)
        if isinstance(said, messages.Cancel):
            self._take_back(link, said.id)
            return
        try:
            if said.id in self._waits.get(link, ()) or self._asked.get(link) == said.id:
                raise BadArgs(f"call {said.method}: the id {said.id} is that of a request that still waits")
            self._answer(link, said, now)
        except InternalError as problem:
            self._log(Level.ERROR, problem.message, {"method": said.method})
            self._reply(link, messages.error(said.id, problem))
        except SrvdError as problem:
            self._reply(link, messages.error(said.id, problem))
        except Exception as exc:
            text = traceback.format_exc()
            self._log(Level.ERROR, f"call {said.method}: a bug in srvd: {exc!r}", {"traceback": text})
            self._reply(link, messages.error(said.id, InternalError(f"call {said.method}: {exc!r}; see the log")))
            link.finish()

    def is_engaged(self, link: ControlConnection) -> bool:
        return link in self._waits or link in self._asked or link in self.watchers

    def due(self, link: ControlConnection) -> float:
        """The first deadline of a request that waits."""
        return min((wait.due for wait in self._waits.get(link, {}).values()), default=math.inf)

    def expire(self, link: ControlConnection, now: float) -> None:
        """Answer the requests whose deadline has passed; their operations go on."""
        for wait in list(self._waits.get(link, {}).values()):
            if wait.due <= now:
                self._end_wait(link, wait, _outlasted(wait, self._operation(wait.op)))

    def forget(self, link: ControlConnection) -> None:
        """The connection has ended. What it asked for goes on."""
        self._waits.pop(link, None)
        self._asked.pop(link, None)
        self.watchers.end(link)
        self.stoppers.discard(link)

    def progress(self, op: int, phase: str, done: int, total: int, message: str) -> None:
        for link, wait in self._waiting_for(op):
            if link.has_room:
                self._reply(link, messages.progress(wait.number, op, phase, done, total, message))

    def settle(self, op: int) -> None:
        """The operation has ended: answer everyone who waits for it."""
        operation = self._operation(op)
        for entry in self._idems.of_operation(op):
            entry.outcome = outcome(entry.method, operation)
        for link, wait in self._waiting_for(op):
            self._end_wait(link, wait, outcome(wait.method, operation))

    def carry(self) -> Memory:
        """What another program needs to give the same answers."""
        return Memory(self.watchers.ring.carry(), self._idems.carry())

    def resume(self, memory: Memory) -> None:
        """Go on with what `carry` told."""
        self.watchers.ring.resume(memory.events)
        self._idems.resume(memory.idems, self._outcome)

    def _outcome(self, method: str, op: int) -> dict[str, Any] | None:
        operation = self._operation(op)
        return outcome(method, operation) if operation["state"] in ENDED else None

    def close(self, reason: str) -> None:
        """The daemon goes: answer who still waits, with what is known."""
        for link, number in self._asked.items():
            self._reply(link, messages.error(number, ShuttingDown(f"the daemon goes ({reason})")))
        self._asked.clear()
        for op in {wait.op for waits in self._waits.values() for wait in waits.values()}:
            operation = self._operation(op)
            if operation["state"] in ENDED:
                self.settle(op)
                continue
            gone = ShuttingDown(f"operation {op}: the daemon goes ({reason}); nobody can say how it ended")
            for link, wait in self._waiting_for(op):
                self._end_wait(link, wait, {"type": "err", "error": gone.to_wire()})

    def _answer(self, link: ControlConnection, said: messages.Request, now: float) -> None:
        entry = command(said.method)
        if not may(link.peer.role, entry):
            raise self._refused(link.peer, entry)
        args = check(entry, said.args)
        if entry.streams:
            result = self.watchers.begin(link, said.id, args)
            self._reply(link, messages.ok(said.id, result))
            self.watchers.pump(link)
        elif entry.name == "op.wait":
            seconds = min(said.deadline or math.inf, args["timeout"] or math.inf)
            self._wait(link, Wait(said.id, entry.name, args["id"], now + seconds))
        elif entry.name == "op.show":
            self._reply(link, messages.ok(said.id, {"operation": self._backend.operation(args["id"])}))
        elif entry.takes_time:
            self._ask(link, said, args)
        elif entry.changes:
            self._order(link, said, args, now)
        else:
            self._reply(link, messages.ok(said.id, self._backend.query(entry.name, args, link.peer)))

    def _ask(self, link: ControlConnection, said: messages.Request, args: dict[str, Any]) -> None:
        if link in self._asked:
            raise Busy(f"call {said.method}: a question of this connection is being answered")
        if said.deadline:
            args["timeout"] = min(args["timeout"] or said.deadline, said.deadline)
        self._asked[link] = said.id
        try:
            self._backend.ask(said.method, args, partial(self._told, link, said.id))
        except BaseException:
            self._asked.pop(link, None)
            raise
        shown = " ".join(f"{name}={value}" for name, value in said.args.items())
        text = f"{said.method} {shown}".rstrip() + f", asked by {link.peer.actor()}"
        self._log(Level.INFO, text, _fields(link.peer, said.method))

    def _told(self, link: ControlConnection, number: int, result: dict[str, Any]) -> None:
        if self._asked.get(link) == number:  # else it hung up, or took it back
            del self._asked[link]
            self._reply(link, messages.ok(number, result))

    def _refused(self, peer: Peer, entry: Command) -> PermissionRefused:
        if entry.changes:
            self._log(Level.WARNING, f"{entry.name} refused: {peer.actor()} is {peer.role}", _fields(peer, entry.name))
        return PermissionRefused(
            f"call {entry.name}: it needs the role {entry.role}, and {peer.name} (uid {peer.uid}) is {peer.role}",
            hint="the setting `roles` of [control] gives roles to users and groups",
        )

    def _order(self, link: ControlConnection, said: messages.Request, args: dict[str, Any], now: float) -> None:
        peer, waits = link.peer, args.get("wait", True)
        if waits:
            self._check_room(link)
        known = self._idems.find(peer.uid, said.idem, said.method, args)
        if known is not None and known.outcome is not None:
            self._reply(link, {**known.outcome, "id": said.id})
            return
        op = known.op if known is not None else self._place(peer, said, args)
        if said.method == "stop" and waits:
            self.stoppers.add(link)
        if waits:
            self._wait(link, Wait(said.id, said.method, op, now + (said.deadline or math.inf)))
        else:
            self._reply(link, messages.ok(said.id, {"operation": self._backend.operation(op)}))

    def _check_cancel(self, peer: Peer, op: int) -> None:
        """Who could not have ordered it cannot take it back either. Raises `PermissionRefused`, `NoSuchOperation`."""
        kind = self._backend.operation(op).get("kind")
        ordered = next((entry for entry in COMMANDS if entry.name == kind), None)
        if ordered is not None and not may(peer.role, ordered):
            raise self._refused(peer, ordered._replace(name=f"op.cancel of {kind}"))

    def _place(self, peer: Peer, said: messages.Request, args: dict[str, Any]) -> int:
        """Give the order to the backend; one that was refused is in the log with who asked.

        One that was taken is there already, in the core's words; ours, with the arguments as they came, are for debug.
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

    def _wait(self, link: ControlConnection, wait: Wait) -> None:
        """Answer when the operation has ended, which may be already. Raises `NoSuchOperation`, `Busy`."""
        operation = self._backend.operation(wait.op)
        if operation["state"] in ENDED:
            self._reply(link, {**outcome(wait.method, operation), "id": wait.number})
            return
        self._check_room(link)
        self._waits.setdefault(link, {})[wait.number] = wait
        phase = str(operation.get("phase") or operation["state"])
        self._reply(link, messages.progress(wait.number, wait.op, phase, 0, 0, ""))

    def _check_room(self, link: ControlConnection) -> None:
        if len(self._waits.get(link, ())) >= self._most_waits:
            raise Busy(f"wait for an operation: {self._most_waits} requests of this connection wait already")

    def _take_back(self, link: ControlConnection, number: int) -> None:
        wait = self._waits.get(link, {}).get(number)
        if wait is not None:
            gone = Cancelled(
                f"{wait.method}: no longer waited for; operation {wait.op} goes on", detail={"operation": wait.op}
            )
            self._end_wait(link, wait, {"type": "err", "error": gone.to_wire()})
        elif self._asked.get(link) == number:
            del self._asked[link]
            self._reply(link, messages.error(number, Cancelled("no longer waited for, as asked")))
        elif self.watchers.end(link, number):
            self._reply(link, messages.error(number, Cancelled("watch: ended, as asked")))
        # Else its answer is on the way already.

    def _end_wait(self, link: ControlConnection, wait: Wait, reply: dict[str, Any]) -> None:
        waits = self._waits.get(link, {})
        waits.pop(wait.number, None)
        if not waits:
            self._waits.pop(link, None)
        self._reply(link, {**reply, "id": wait.number})

    def _waiting_for(self, op: int) -> list[tuple[ControlConnection, Wait]]:
        return [(link, wait) for link, waits in self._waits.items() for wait in waits.values() if wait.op == op]

    def _operation(self, op: int) -> dict[str, Any]:
        """The operation's map, or one that says that it is lost: history is bounded."""
        try:
            return self._backend.operation(op)
        except SrvdError as problem:
            return {"id": op, "state": "failed", "error": problem.to_wire()}

    def _reply(self, link: ControlConnection, message: dict[str, Any]) -> None:
        if link.peer.role == VIEWER:
            message = messages.public(message)
        try:
            link.send(message)
        except BadFrame as problem:
            hint = "ask for less: many commands take limit and offset"
            link.send(messages.error(message["id"], BadArgs(f"answer: {problem.message}", hint=hint)))


def outcome(method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to a request that waited for this operation, without its id. It says what became true."""
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
