"""The three wires – control socket, links, state file – take any bytes: a known message, or the error that is theirs.

Seeded. A run takes some seconds; SRVD_FUZZ_SECONDS makes it longer, SRVD_FUZZ_SEED is another one. What once broke, and
one example of each kind, is kept in `corpus/` and comes first. `python -m tests.hostile.test_fuzz` writes the examples.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest

from srvd.core.supervisor import Supervisor
from srvd.daemon.children.commons import BELL
from srvd.daemon.recovery import envelope, state_file
from srvd.daemon.recovery.former import look
from srvd.errors import BadArgs, BadFrame, SrvdError, Unsupported
from srvd.wire import codec, commands, links, messages, validate

CORPUS = Path(__file__).parent / "corpus"
STATES = Path(__file__).parent.parent / "states"
SECONDS = float(os.environ.get("SRVD_FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("SRVD_FUZZ_SEED", "1"))

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.5, 1e308, float("inf"), float("nan"),
    "", "x", "web", "\0", "\x1b[2J", "/../..", "é" * 50, "9" * 300, b"", b"\xff\xfe", b"\0" * 64, [], [[]], [None], {},
    {"": ""}, {"x": {}}, [1, 2], ["a", "b"],
)  # fmt: skip


def _control(data: bytes) -> None:
    for message in codec.Decoder().feed(data):
        said = messages.read_message(message)
        if isinstance(said, messages.Request):
            entry = next((one for one in commands.COMMANDS if one.name == said.method), None)
            if entry is not None:
                validate.check(entry, said.args)


def _link(data: bytes) -> None:
    refused = 0
    for allowed in (links.FROM_WORKER, links.FROM_ZYGOTE, links.FROM_ORPHAN, links.TO_WORKER, links.TO_ZYGOTE):
        try:
            message = links.decode(data, allowed)
        except BadFrame:
            refused += 1
            continue
        links.encode(message)
    if refused == 5:
        raise BadFrame("nobody may say that")


def _state(data: bytes) -> None:
    former = look(state_file.unseal(data).data)
    if former is not None:
        former.close()
        Supervisor(state=former.found.state).next_deadline()


class Wire(NamedTuple):
    take: Callable[[bytes], None]
    refusals: tuple[type[SrvdError], ...]
    plain: Callable[[bytes], Any]  # of an example, as values
    packed: Callable[[Any], bytes]


def _sealed(plain: Any, boot: str = "") -> bytes:
    """A state of this boot, or it would not be looked at."""
    parts = list(plain)
    parts[0], parts[4] = boot or envelope.boot_id(), msgpack.packb(parts[4], unicode_errors="surrogateescape")
    return state_file.seal(state_file.Sealed(1, msgpack.packb(parts)))


def _unsealed(data: bytes) -> Any:
    parts = msgpack.unpackb(state_file.unseal(data).data, strict_map_key=False)
    return [*parts[:4], msgpack.unpackb(parts[4], strict_map_key=False, unicode_errors="surrogateescape")]


def _framed(plain: Any) -> bytes:
    body: bytes = msgpack.packb(plain)
    return len(body).to_bytes(4, "big") + body


WIRES = {
    "control": Wire(_control, (BadFrame, BadArgs), lambda data: msgpack.unpackb(data[4:]), _framed),
    "link": Wire(_link, (BadFrame,), msgpack.unpackb, msgpack.packb),
    "state": Wire(_state, (Unsupported,), _unsealed, _sealed),
}


def bytes_of(data: bytes, dice: random.Random) -> bytes:
    """The same with some bytes changed, cut out, doubled or put in."""
    raw = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(raw) + 1)
        match dice.randrange(4):
            case 0 if at < len(raw):
                raw[at] = dice.randrange(256)
            case 1:
                del raw[at : at + dice.randint(1, 8)]
            case 2:
                raw[at:at] = raw[at : at + dice.randint(1, 64)]
            case _:
                raw[at:at] = dice.randbytes(dice.randint(1, 8))
    return bytes(raw)


def values_of(plain: Any, dice: random.Random) -> Any:
    """The same with one value, somewhere, exchanged for an odd one, left out or doubled."""
    if isinstance(plain, dict) and plain and dice.random() < 0.95:
        key = dice.choice(list(plain))
        if dice.random() < 0.1:
            return {name: value for name, value in plain.items() if name != key} | {
                dice.choice(("", "x", 7)): plain[key]
            }
        return {**plain, key: values_of(plain[key], dice)}
    if isinstance(plain, list) and plain and dice.random() < 0.95:
        at = dice.randrange(len(plain))
        if dice.random() < 0.1:
            return plain[:at] + dice.choice(([], [plain[at]] * 2)) + plain[at + 1 :]
        return [*plain[:at], values_of(plain[at], dice), *plain[at + 1 :]]
    return dice.choice(ODD)


def inputs(wire: Wire, examples: list[bytes], dice: random.Random) -> Iterator[bytes]:
    plains = [wire.plain(example) for example in examples]
    while True:
        number = dice.randrange(len(examples))
        if dice.random() < 0.3:
            yield bytes_of(examples[number], dice)
            continue
        plain = plains[number]
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            plain = values_of(plain, dice)
        try:
            yield wire.packed(plain)
        except (ValueError, TypeError, OverflowError, LookupError):  # it cannot be spelled
            continue


@pytest.mark.parametrize("name", WIRES)
def test_a_wire_takes_any_bytes(name: str) -> None:
    wire = WIRES[name]
    examples = [path.read_bytes() for path in sorted((CORPUS / name).glob("*.bin"))]
    assert examples
    taken = refused = 0
    until = time.monotonic() + SECONDS
    for data in [*examples, *(path.read_bytes() for path in sorted((CORPUS / name).glob("*.broke")))]:
        _feed(wire, data)
    for data in inputs(wire, examples, random.Random(SEED)):
        if _feed(wire, data):
            taken += 1
        else:
            refused += 1
        if time.monotonic() > until and taken + refused >= 50:
            break
    print(f"{name}: {taken} taken, {refused} refused")  # noqa: T201 - a figure to read
    assert refused


def _feed(wire: Wire, data: bytes) -> bool:
    """Whether it was taken. Anything but the wire's own refusal is a bug, and shows its input."""
    try:
        wire.take(data)
    except wire.refusals:
        return False
    except Exception as exc:
        pytest.fail(f"{exc!r} for {data[:2000].hex()} (keep it as corpus/NAME.broke)")
    return True


def main() -> None:
    """Write one example of each kind of message."""
    for entry in commands.COMMANDS:
        wanted = messages.Request(7, entry.name, {field.name: "web" for field in entry.fields}, 5.0, "once")
        (CORPUS / "control" / f"{entry.name}.bin").write_bytes(codec.encode(messages.request(wanted)))
    (CORPUS / "control" / "cancel.bin").write_bytes(codec.encode(messages.cancel(7)))
    values: dict[str, Any] = {
        "str": "text", "int": 3, "float": 1.5, "bool": True, "int | None": None, "list[str]": ["note"],
        "Modules": ["shop.views"], "list[int]": [1], "list[dict[str, Any]]": [{"name": "web"}],
        "list[list[int]]": [[1, 100]], "dict[str, Any]": {"threads": 1},
    }  # fmt: skip
    for cls in {*links.TO_ZYGOTE, *links.TO_WORKER, *links.FROM_ZYGOTE, *links.FROM_WORKER, *links.FROM_ORPHAN}:
        example = [cls.__name__, *(values[str(kind)] for kind in cls.__annotations__.values())]
        (CORPUS / "link" / f"{cls.__name__}.bin").write_bytes(msgpack.packb(example))
    state = msgpack.unpackb((STATES / "handover-2.msgpack").read_bytes(), strict_map_key=False)
    parts = ["", {"zygote web@1": 5}, {BELL: 9}, {"web": 1}, state]
    (CORPUS / "state" / "handover-2.bin").write_bytes(_sealed(parts, "another boot"))


if __name__ == "__main__":
    main()
