"""Claims about the mask: with and without the package websockets it is the same."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from websockets.speedups import apply_mask

from srvd.http.ws import mask


@given(st.binary(max_size=200), st.binary(min_size=4, max_size=4))
def test_both_ways_are_the_same_and_undo_themselves(data: bytes, key: bytes) -> None:
    assert mask.xored(data, key) == apply_mask(data, key) == bytes(byte ^ key[at % 4] for at, byte in enumerate(data))
    assert mask.xored(mask.xored(data, key), key) == data


def test_the_mask_in_c_is_taken_where_it_is_installed() -> None:
    assert mask.masked is apply_mask


def test_frames_are_read_without_the_package() -> None:
    script = """
import sys
sys.modules["websockets"] = None
from srvd.http.ws.limits import Limits
from srvd.http.ws.websocket import WebSocket
from srvd.http.ws import mask
assert mask.masked is mask.xored
print(*WebSocket(Limits(), None).receive(bytes.fromhex("818537fa213d7f9f4d5158")))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    assert result.stdout == b"Hello\n"


def test_neither_a_daemon_nor_a_wsgi_pool_imports_websockets() -> None:
    """The protocol is for pools that speak it: all others pay neither its import nor its memory."""
    script = """
import sys
import srvd.daemon.entry.start, srvd.daemon.main, srvd.zygote.main, srvd.worker.main
print("srvd.http.h1.head" in sys.modules, *[name for name in sys.modules if "websockets" in name or "http.ws" in name])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    assert result.stdout == b"True\n"
