"""The page on the control protocol, held against a daemon by clients that know nothing but the page."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd

pytestmark = pytest.mark.system

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "wire.md").read_text()
PROGRAM = PAGE.partition("```python\n")[2].partition("```")[0]
FUNCTIONS: dict[str, Any] = {"__name__": "page"}
exec(compile(PROGRAM, "wire.md", "exec"), FUNCTIONS)

Map = dict[str, Any]


class Peer:
    """A connection by the functions of the page."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(path))
        self.stream = self.sock.makefile("rb")

    def send(self, message: Map) -> None:
        FUNCTIONS["send"](self.sock, message)

    def next(self) -> Map:
        message: Map = FUNCTIONS["receive"](self.stream)
        return message

    def ask(self, number: int, method: str, **more: Any) -> list[Map]:
        """The messages of this request, its answer the last."""
        self.send({"type": "req", "id": number, "method": method, **more})
        found: list[Map] = []
        while not found or found[-1]["type"] not in ("ok", "err"):
            found.append(self.next())
        return found

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


@pytest.fixture
def srvd(starter: Starter) -> Srvd:
    made = starter.new()
    made.good()
    return made.start()


@pytest.fixture
def peer(srvd: Srvd) -> Iterator[Peer]:
    made = Peer(srvd.socket)
    yield made
    made.close()


def keys(kind: str) -> set[str]:
    """Those that the table of a message has."""
    table = PAGE.partition(f"| key of `{kind}` |")[2].partition("\n\n")[0]
    found = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert found
    return found


def test_the_client_of_the_page_gives_an_order(srvd: Srvd, tmp_path: Path) -> None:
    before = srvd.pool()["desired"]
    program = tmp_path / "client.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, program, srvd.socket], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr, "there was no progress"
    assert srvd.pool()["desired"] == before + 1


def test_the_client_of_the_page_is_told_why_an_order_is_refused(srvd: Srvd) -> None:
    with pytest.raises(RuntimeError, match=r"no_such_pool: there is no pool 'nope'"):
        FUNCTIONS["call"](str(srvd.socket), "scale", pool="nope", delta=1)


def test_the_greeting_and_the_answers_have_the_keys_of_the_page(peer: Peer) -> None:
    hello = peer.next()
    assert hello["type"] == "hello"
    assert hello.keys() == keys("hello")
    *progress, ok = peer.ask(1, "scale", args={"delta": 1})
    assert ok.keys() == keys("ok")
    listed = PAGE.partition("An operation is a map of ")[2].partition(". The state")[0]
    assert ok["result"]["operation"].keys() == set(re.findall(r"`(\w+)`", listed))
    assert progress[0].keys() == set(
        re.findall(
            r"`(\w+)`", PAGE.partition("messages of the type `progress` may come: ")[2].partition(". The first")[0]
        )
    ) | {"type"}
    assert progress[0]["operation"] == ok["result"]["operation"]["id"]
    (err,) = peer.ask(2, "no.such.method")
    assert err.keys() == keys("err")
    assert err["error"].keys() == {"code", "message", "hint", "retryable", "detail"}
    assert err["error"]["code"] == "unknown_method"
    assert "| `unknown_method` |" in PAGE


def test_an_order_without_wait_is_answered_as_it_has_begun_and_waited_for_later(peer: Peer) -> None:
    peer.next()
    (begun,) = peer.ask(1, "reload", args={"wait": False})
    operation = begun["result"]["operation"]
    assert operation["state"] in ("queued", "running")
    assert peer.ask(2, "op.wait", args={"id": operation["id"]})[-1]["result"]["operation"]["state"] == "done"


def test_an_order_that_is_sent_twice_with_one_idem_is_done_once(srvd: Srvd, peer: Peer) -> None:
    peer.next()
    before = srvd.pool()["desired"]
    answers = [peer.ask(number, "scale", args={"delta": 1}, idem="a random text")[-1] for number in (1, 2)]
    assert answers[0]["result"] == answers[1]["result"]
    assert srvd.pool()["desired"] == before + 1
    assert peer.ask(3, "reload", idem="a random text")[-1]["error"]["code"] == "conflict"


def test_a_watch_has_the_events_of_the_page_until_it_is_cancelled(peer: Peer) -> None:
    peer.next()
    (begun,) = peer.ask(1, "watch", args={"topics": ["operation"]})
    assert {"oldest", "newest", "last"} <= begun["result"].keys()
    event = peer.next()
    assert event.keys() == keys("ev")
    assert event["topic"] == "operation"
    assert {"level", "text"} <= event["data"].keys()
    while event["seq"] < begun["result"]["last"]:
        event = peer.next()
    peer.send({"type": "cancel", "id": 1})
    answer = peer.next()
    assert (answer["id"], answer["error"]["code"]) == (1, "cancelled")


def test_a_frame_that_breaks_a_rule_ends_the_connection_as_the_page_says(peer: Peer) -> None:
    peer.next()
    peer.send({"type": "req", "id": 1, "method": "ping", "unknown": True})
    error, bye = peer.next(), peer.next()
    assert (error["type"], error["id"], error["error"]["code"]) == ("err", 0, "bad_frame")
    assert (bye["type"], bye["reason"]) == ("bye", "bad_frame")
    assert bye.keys() == {"type", "reason", "message"}
    with pytest.raises(ConnectionError):
        peer.next()


def test_the_end_of_a_connection_that_asked_for_the_stop_is_the_daemons_end(srvd: Srvd, peer: Peer) -> None:
    peer.next()
    peer.ask(1, "stop")
    assert peer.next()["type"] == "bye"
    with pytest.raises(ConnectionError):
        peer.next()
    assert srvd.wait() == 0
