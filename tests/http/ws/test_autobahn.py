"""Autobahn|Testsuite against the protocol on plain sockets, and a real client against the same server.

The suite runs on Python 2.7: `docs/contributing.md` says how to get it. Without it its cases are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from srvd.http.ws.extensions import Deflate
from srvd.http.ws.limits import Limits
from tests.support.http_feed import request
from tests.support.websocket_feed import TEXT, compressed, frame
from tests.support.websocket_server import echo_server

WSTEST = os.environ.get("SRVD_WSTEST") or shutil.which("wstest")
CASES = [
    *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"),
    *(f"{group}.{number}" for group in ("12.1", "12.2", "12.3", "12.4", "12.5") for number in (1, 6, 10, 14, 18)),
    *(f"13.{group}.{number}" for group in range(1, 8) for number in (1, 6, 10, 14, 18)),
]
"""All of the protocol, performance and limits; of compression each setting with some sizes (all would take an hour)."""
NO_CLAIMS = {"7.1.6", "7.13.1", "7.13.2"}
"""Cases that only tell what a server does."""
_CASES_TAKE = 1500
_PATIENCE = 30
CHAT = Subprotocol("chat")


@pytest.mark.long
@pytest.mark.skipif(WSTEST is None, reason="no wstest: neither SRVD_WSTEST names it nor is it in PATH")
def test_autobahn_has_no_complaint_not_even_a_soft_one(tmp_path: Path) -> None:
    assert WSTEST is not None
    with echo_server(Deflate()) as server:
        spec = {
            "outdir": str(tmp_path / "reports"), "cases": CASES, "exclude-cases": [], "exclude-agent-cases": {},
            "servers": [{"agent": "srvd", "url": f"ws://127.0.0.1:{server.port}"}],
        }  # fmt: skip
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        command = [WSTEST, "-m", "fuzzingclient", "-s", "spec.json"]
        subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=_CASES_TAKE, check=True)
    results = json.loads((tmp_path / "reports" / "index.json").read_text())["srvd"]
    wanted = Counter({"OK": len(results) - len(NO_CLAIMS), "INFORMATIONAL": len(NO_CLAIMS)})
    bad = {case: result for case, result in results.items()
           if case not in NO_CLAIMS and (result["behavior"], result["behaviorClose"]) != ("OK", "OK")}  # fmt: skip
    assert bad == {}
    assert Counter(result["behavior"] for result in results.values()) == wanted
    assert len(results) > 350


@pytest.mark.parametrize("deflate", [None, Deflate(threshold=0)])
def test_a_client_is_answered_over_a_socket(deflate: Deflate | None) -> None:
    with echo_server(deflate) as server, connect(f"ws://127.0.0.1:{server.port}/", subprotocols=[CHAT]) as client:
        assert client.subprotocol == "chat"
        for message in ("hello", b"\x00\xff", "", "ä" * 50_000, bytes(300_000)):
            client.send(message)
            assert client.recv(timeout=_PATIENCE) == message
        client.send(["in ", "three ", "parts"])
        assert client.recv(timeout=_PATIENCE) == "in three parts"
        assert client.ping().wait(_PATIENCE)
        client.close(4000, "enough")
    assert (client.protocol.close_code, client.protocol.close_reason) == (4000, "enough")


def test_a_client_that_sends_too_much_is_told_so() -> None:
    with echo_server(limits=Limits(message=1000)) as server, connect(f"ws://127.0.0.1:{server.port}/") as client:
        client.send("small")
        client.send("x" * 1001)
        assert client.recv(timeout=_PATIENCE) == "small"
        with pytest.raises(ConnectionClosedError, match="1009"):
            client.recv(timeout=_PATIENCE)


def opening(*fields: str) -> bytes:
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    return request("Upgrade: websocket", "Connection: Upgrade", key, *fields)


def all_answers(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65_536), b""))


def test_frames_in_the_segment_of_the_handshake_are_answered() -> None:
    extension = "Sec-WebSocket-Extensions: permessage-deflate"
    early = frame(TEXT, b"early") + compressed(TEXT, b"squeezed")
    with echo_server(Deflate()) as server:
        answer = all_answers(server.port, opening("Sec-WebSocket-Version: 13", extension) + early)
    head, _, frames = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames == b"\x81\x05early" + b"\x81\x08squeezed"


def test_a_refused_handshake_is_answered_over_a_socket() -> None:
    with echo_server() as server:
        assert all_answers(server.port, opening("Sec-WebSocket-Version: 7")).startswith(b"HTTP/1.1 426 ")
        assert all_answers(server.port, opening("Sec-WebSocket-Version: 13", "Content-Length: 1")).startswith(
            b"HTTP/1.1 400 "
        )
        assert all_answers(server.port, request()).startswith(b"HTTP/1.1 426 ")
