"""The messages of the control socket: what each frame's map holds, in both directions.

Encodes and reads only: the daemon decides what a request means, and which roles may send it. Pure.

The server speaks first: `hello`, or `bye` to a peer that it refuses. Each `req` is answered by one `ok` or `err` with
the same id. `progress` may come before the answer, and `ev` after the `ok` of a watch. `cancel` takes a request back:
its `err cancelled` comes at once, and the operation that it began goes on. `bye` is the last frame before the server
closes the connection, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srvd.errors import BadFrame, SrvdError
from srvd.quoting import without_quotes
from srvd.record import Record
from srvd.wire.codec import DEPTH, PROTOCOL, REQUESTS, RESPONSES, SCHEMA

__all__ = [
    "Cancel", "Hello", "Request", "bye", "cancel", "error", "event", "hello", "lost", "ok", "progress", "public",
    "read_hello", "read_message", "request",
]  # fmt: skip

MOST_ID = 2**53
"""The largest id: every integer up to it is exact in a double, which is the only number of some languages."""

WITHHELD = "(operators are shown it)"
_OF_OPERATORS = frozenset({"traceback", "stderr", "stacks"})

METHOD_LIMIT = 64
IDEM_LIMIT = 64
MOST_DEADLINE = 1e6
"""Seconds, about eleven days."""


class Hello(Record):
    protocol: int = PROTOCOL
    version: str = ""  # of srvd
    name: str = ""  # of the instance
    instance: str = ""  # differs after each start of the daemon
    pid: int = 0
    role: str = ""  # the peer's


class Request(Record):
    id: int
    method: str
    args: dict[str, Any]
    deadline: float  # seconds that the peer waits from now; 0: no limit
    idem: str  # a key: the same request with the same key has one effect, and the same answer; "": none


class Cancel(Record):
    id: int


def hello(greeting: Hello) -> dict[str, Any]:
    limits = {"request": REQUESTS.frame, "response": RESPONSES.frame, "depth": DEPTH}
    return {"type": "hello", **greeting._asdict(), "limits": limits}


def request(wanted: Request) -> dict[str, Any]:
    message: dict[str, Any] = {"type": "req", "id": wanted.id, "method": wanted.method, "args": wanted.args}
    if wanted.deadline:
        message["deadline"] = wanted.deadline
    if wanted.idem:
        message["idem"] = wanted.idem
    return message


def cancel(number: int) -> dict[str, Any]:
    return {"type": "cancel", "id": number}


def ok(number: int, result: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "ok", "id": number, "result": {"schema": SCHEMA, **result}}


def error(number: int, problem: SrvdError) -> dict[str, Any]:
    """Returns the `err` of a request; `number` 0: an error of the connection."""
    return {"type": "err", "id": number, "error": problem.to_wire()}


def progress(number: int, operation: int, phase: str, done: int, total: int, message: str) -> dict[str, Any]:
    return {
        "type": "progress",
        "id": number,
        "operation": operation,
        "phase": phase,
        "done": done,
        "total": total,
        "message": message,
    }


def event(seq: int, at: float, topic: str, name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """`at`: Unix time in seconds. `name`: as docs/reference/events.md lists them."""
    return {"type": "ev", "seq": seq, "at": at, "topic": topic, "name": name, "data": dict(data), "lost": 0}


def lost(seq: int, at: float, count: int) -> dict[str, Any]:
    """Returns what is sent in place of `count` events up to `seq`, which the peer was too slow to read."""
    return {"type": "ev", "seq": seq, "at": at, "topic": "lost", "name": "lost", "data": {}, "lost": count}


def bye(reason: str, message: str) -> dict[str, Any]:
    """Returns a `bye`. `reason`: a code of `errors.CODES`, "stopped" or "upgrade"; `message`: the same for people."""
    return {"type": "bye", "reason": reason, "message": message}


def read_message(message: Mapping[str, Any]) -> Request | Cancel:
    """Reads a message to the daemon. Raises `BadFrame`: the message is none of this protocol."""
    kind = message.get("type")
    number = message.get("id")
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST_ID:
        raise BadFrame(f"read a message: its id is no number from 1 to {MOST_ID}")
    if kind == "cancel" and len(message) == 2:  # type and id, nothing else
        return Cancel(number)
    if kind != "req":
        raise BadFrame("read a message: its type is neither req nor cancel")
    unknown = message.keys() - {"type", "id", "method", "args", "deadline", "idem"}
    if unknown:
        raise BadFrame(f"read a request: unknown key {min(unknown)[:METHOD_LIMIT]!r}")
    return Request(
        number, _method(message), _args(message), _deadline(message.get("deadline", 0)), _idem(message.get("idem", ""))
    )


def _method(message: Mapping[str, Any]) -> str:
    method = message.get("method")
    if not isinstance(method, str) or not 0 < len(method) <= METHOD_LIMIT:
        raise BadFrame(f"read a request: its method is no text of 1 to {METHOD_LIMIT} characters")
    return method


def _args(message: Mapping[str, Any]) -> dict[str, Any]:
    args = message.get("args", {})
    if not isinstance(args, dict):
        raise BadFrame("read a request: its args are no map")
    return args


def _deadline(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST_DEADLINE:
        raise BadFrame(f"read a request: its deadline is no number of seconds from 0 to {MOST_DEADLINE:.0f}")
    return value


def _idem(value: object) -> str:
    if not isinstance(value, str) or len(value) > IDEM_LIMIT:
        raise BadFrame(f"read a request: its idem is no text of at most {IDEM_LIMIT} characters")
    return value


def read_hello(message: Mapping[str, Any]) -> Hello:
    """Reads the server's greeting. Raises `BadFrame` when it is no greeting of any version of this protocol."""
    protocol = message.get("protocol")
    if message.get("type") != "hello" or isinstance(protocol, bool) or not isinstance(protocol, int):
        raise BadFrame("read the daemon's greeting: that is none")
    if protocol != PROTOCOL:
        return Hello(protocol, str(message.get("version", "")))
    texts = [message.get(key) for key in ("version", "name", "instance", "role")]
    pid = message.get("pid")
    if not all(isinstance(text, str) for text in texts) or isinstance(pid, bool) or not isinstance(pid, int):
        raise BadFrame("read the daemon's greeting: a field is of the wrong type")
    version, name, instance, role = (str(text) for text in texts)
    return Hello(protocol, version, name, instance, pid, role)


def public(value: Any) -> Any:
    """Returns the value without the application's words, for a viewer.

    Tracebacks, stacks and output of a process may hold any data that it had: a cookie, a password, a row of a table.
    """
    if isinstance(value, str):
        return without_quotes(value, WITHHELD)
    if isinstance(value, list):
        return [public(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: WITHHELD if name in _OF_OPERATORS and told else public(told) for name, told in value.items()}
