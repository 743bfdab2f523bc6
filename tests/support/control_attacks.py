"""Attacks on a control socket, each a function of its path. What they do to a daemon is claimed elsewhere."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable

from srvd.wire.codec import encode

__all__ = ["ATTACKS", "Attack"]

Attack = Callable[[str, random.Random], None]


def _connect(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    try:
        peer.settimeout(2)
        peer.connect(path)
    except BaseException:
        peer.close()
        raise
    return peer


def _random_bytes(path: str, dice: random.Random) -> None:
    with _connect(path) as peer:
        peer.sendall(dice.randbytes(dice.randint(1, 200_000)))


def _length_bombs(path: str, dice: random.Random) -> None:
    with _connect(path) as peer:
        peer.sendall(dice.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x01\x00\x01"]) + b"\x81" * 1000)


def _nested_arrays(path: str, dice: random.Random) -> None:
    with _connect(path) as peer:
        peer.sendall((65_000).to_bytes(4, "big") + b"\x81\xa1x" + b"\x91" * (16 << 20))


def _begun_frames(path: str, dice: random.Random) -> None:
    with _connect(path) as peer:
        frame = encode({"req": {"id": 1, "method": "status", "args": {}}})
        peer.sendall(frame[: dice.randrange(1, len(frame))])


def _never_reads(path: str, dice: random.Random) -> None:
    with _connect(path) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for number in range(200):
            peer.sendall(encode({"req": {"id": number, "method": "status", "args": {}}}))


def _idle_connections(path: str, dice: random.Random) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(100):
            held.enter_context(_connect(path))


def _passed_descriptors(path: str, dice: random.Random) -> None:
    with _connect(path) as peer:
        socket.send_fds(peer, [b"\x00\x00\x00\x05"], [0] * 50)


ATTACKS: tuple[Attack, ...] = (
    _random_bytes,
    _length_bombs,
    _nested_arrays,
    _begun_frames,
    _never_reads,
    _idle_connections,
    _passed_descriptors,
)
