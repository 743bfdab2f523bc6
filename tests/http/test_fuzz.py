"""Mutated streams of requests, cut at random, read by srvd's core and by h11: every difference has to have its reason.

`FUZZ_STREAMS` says how many (100,000 are a long run, two minutes), `FUZZ_SEED` which ones.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import h11_reading, http_feed, http_streams
from tests.support.h11_reading import Reading
from tests.support.http_feed import Outcome
from tests.support.http_rules import RULES, Rule, see
from tests.support.worker_rig import Client, Rig

STREAMS = int(os.environ.get("FUZZ_STREAMS", "5000"))
SEED = os.environ.get("FUZZ_SEED", "1")


class Verdict(NamedTuple):
    """What the two made of a stream."""

    reasons: set[str]  # why they differ, or what was put right so that they do not
    unexplained: str = ""  # what has no reason


@pytest.mark.slow
def test_srvd_and_h11_find_the_same_requests_in_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    reasons: Counter[str] = Counter()
    unexplained = []
    served = 0
    warm = http_feed.reader()  # it remembers lines and sections of all streams
    for number in range(STREAMS):
        seed = f"{SEED}/{number}"
        data = http_streams.stream(seed)
        pieces = http_streams.cuts(seed, data)
        srvd = http_feed.whole(data)
        served += len(srvd.messages)
        verdict = _same(srvd, http_feed.feed(pieces), "in pieces")
        verdict = verdict or _same(srvd, http_feed.feed([data], heads=warm), "to a reader that has seen others before")
        verdict = verdict or compare(data, srvd, h11_reading.read(pieces))
        reasons.update(verdict.reasons or {"no difference"})
        if verdict.unexplained:
            unexplained.append(f"{seed}: {verdict.unexplained}\n    {data!r}\n    {srvd}")
    told = f"seed {SEED}: {STREAMS} streams, {served} requests served; " + _table(reasons)
    with capsys.disabled():
        sys.stdout.write(f"\n{told}\n")
    assert not unexplained, "\n".join([told, f"{len(unexplained)} differ without a reason:", *unexplained[:20]])
    assert served > STREAMS // 2, "the streams are too bad to show anything"


def _table(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())


def _same(alone: Outcome, other: Outcome, how: str) -> Verdict | None:
    """How a stream is cut changes nothing, nor what came on other connections before it."""
    if (alone.messages, alone.refused, alone.pending) == (other.messages, other.refused, other.pending):
        return None
    return Verdict(set(), f"{how} it is {other}")


# -- the comparison -----------------------------------------------------------------------------------------------


def compare(data: bytes, srvd: Outcome, h11: Reading) -> Verdict:
    for ours, theirs in zip(srvd.messages, h11.messages, strict=False):
        if difference := _difference(ours, theirs):
            return Verdict(h11.allowed, f"{ours.label}: {difference}")
        if broken := _broken(data[theirs.start : theirs.end]):
            return Verdict(h11.allowed, f"{ours.label} was served, and breaks {[rule.name for rule in broken]}")
    count = len(srvd.messages)
    end = _end(srvd)
    if (count, end) == (len(h11.messages), h11.end):
        return Verdict(h11.allowed)
    if count <= len(h11.messages) and srvd.refused:
        broken = _broken(data[_stop(h11, count) :])
        reasons = {f"srvd is stricter: {rule.name}" for rule in broken if srvd.refused in rule.statuses}
        told = f"{srvd.refused} for what breaks {[rule.name for rule in broken]}; h11: {h11.end} {h11.why}"
        return Verdict(h11.allowed | reasons, "" if reasons else told)
    if count <= len(h11.messages) and end == "pending" and _is_judged_later(data[_stop(h11, count) :]):
        return Verdict(h11.allowed | {"srvd judges a head when it is whole"})
    theirs_told = f"{len(h11.messages)} requests, {h11.end} {h11.why}"
    return Verdict(h11.allowed, f"{count} requests, {end}; h11 has {theirs_told}")


def _stop(h11: Reading, count: int) -> int:
    """Where the request begins that comes after so many."""
    return h11.messages[count].start if count < len(h11.messages) else h11.at


def _end(srvd: Outcome) -> str:
    if srvd.refused:
        return "refused"
    if srvd.pending:
        return "pending"
    return "closed" if srvd.messages and not srvd.messages[-1].keep_alive else "idle"


def _difference(ours: http_feed.Message, theirs: h11_reading.Message) -> str:
    """What is not the same in a request that both have; "" if all is."""
    environ = ours.environ
    pairs = {
        "method": (environ["REQUEST_METHOD"].encode(), theirs.method),
        "target": (environ["RAW_URI"].encode(), theirs.target),
        "version": (environ["SERVER_PROTOCOL"].encode(), b"HTTP/" + theirs.minor),
        "body": (ours.body, theirs.body),
        "trailers": ([(name.lower(), value) for name, value in ours.trailers], theirs.trailers),
        "stays": (ours.keep_alive, not theirs.closes or h11_reading.is_kept_by_1_0(theirs)),
        "fields": (
            {
                name: value.lower() if name == "HTTP_TRANSFER_ENCODING" else value
                for name, value in environ.items()
                if name.startswith(("HTTP_", "CONTENT_"))
            },
            _environ(theirs),
        ),
    }
    return "; ".join(f"{name} {mine!r}, h11 {other!r}" for name, (mine, other) in pairs.items() if mine != other)


def _environ(theirs: h11_reading.Message) -> dict[str, str]:
    """The fields as PEP 3333 and RFC 3875 name them, without those that an application must not see.

    h11 writes the transfer coding in small letters, whatever was sent.
    """
    fields: dict[str, str] = {}
    for name, value in theirs.fields:
        if b"_" in name or name == b"proxy" or (name, value) == (b"host", b""):
            continue
        key = name.decode().upper().replace("-", "_")
        key = key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{key}"
        comma = "; " if name == b"cookie" else ","
        fields[key] = fields[key] + comma + value.decode("latin-1") if key in fields else value.decode("latin-1")
    if b"://" in theirs.target[:8]:  # RFC 9112 section 3.2.2: its authority is the host
        fields["HTTP_HOST"] = re.split("[/?]", theirs.target.decode().partition("://")[2], maxsplit=1)[0]
    return fields


# -- reasons ------------------------------------------------------------------------------------------------------


def _broken(request: bytes) -> list[Rule]:
    seen = see(request)
    return [rule for rule in RULES if rule.is_broken_by(seen)]


def _is_judged_later(request: bytes) -> bool:
    """h11 takes a lone LF for a line's end, and so may find a head's end, or its fault, where srvd still waits for it;
    and it refuses a line at a first byte that no method begins with. srvd refuses both at the latest at the head's end.
    """
    bad = request[0] <= 0x20 or any(rule.name == "line end" for rule in _broken(request))
    return bad and b"\r\n\r\n" not in request and http_feed.whole(request + b"\r\n\r\n").refused > 0


# -- the same streams, through a socket -----------------------------------------------------------------------------


def _echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    told = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}\n".encode() + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [told]


@pytest.mark.parametrize("threads", [1, 4])
def test_a_worker_serves_what_the_core_finds_and_nothing_else(tmp_path: Path, threads: int) -> None:
    wrong = []
    with Rig(_echo, tmp_path, threads=threads) as rig:
        rig.serving()
        for number in range(STREAMS // 10):
            seed = f"{SEED}/{number}"
            data = http_streams.stream(seed)
            wanted = _wanted(http_feed.whole(data))
            found = _found(rig.address, http_streams.cuts(seed, data), [method for method, *_ in wanted])
            if found != [answer for _, *answer in wanted]:
                wrong.append(f"{seed}: {found}, not {wanted}\n    {data!r}")
        assert not wrong, "\n".join([f"{len(wrong)} streams are served otherwise:", *wrong[:10]])
        rig.connections(0)
        assert "bug in srvd" not in rig.log()


def _wanted(outcome: Outcome) -> list[tuple[str, int, bytes]]:
    """Method, status and body of the answers that the stream has to get; a refusal's body is not told."""
    answers = []
    for message in outcome.messages:
        method = message.environ["REQUEST_METHOD"]
        told = f"{method} {message.environ['RAW_URI']}\n".encode() + message.body
        answers.append((method, 200, b"" if method == "HEAD" else told))
    if outcome.refused or outcome.pending:
        # RFC 9112 section 8: what the connection's end cuts off is refused, too.
        answers.append(("", outcome.refused or 400, b""))
    return answers


def _found(address: Any, pieces: list[bytes], methods: list[str]) -> list[list[Any]]:
    """Status and body of every answer up to the connection's end; interim ones are left out."""
    answers: list[list[Any]] = []
    with Client(address) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BrokenPipeError, ConnectionResetError):  # refused, and closed, before all of it was sent
            for piece in pieces:
                client.send(piece)
            client.sock.shutdown(socket.SHUT_WR)
        client.buffer = client.rest()
        while client.buffer:
            method = methods[len(answers)] if len(answers) < len(methods) else ""
            answer = client.answer(bodiless=method in ("HEAD", ""))
            if answer.status == 100:
                continue
            answers.append([answer.status, answer.body])
            if not method:  # refused: nothing comes after its body, which one to HEAD does not have
                assert len(client.buffer) in (0, int(answer.headers["content-length"]))
                break
    return answers
