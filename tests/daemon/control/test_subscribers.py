"""Claims about events: what a watcher gets, late or slow as it may be, and what it costs the daemon (nothing)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from srvd.client.connection import Client
from srvd.client.reconnecting import ReconnectingClient
from srvd.core.model import Level
from srvd.daemon.control.event_log import MOST_BYTES, MOST_EVENTS, EventLog
from srvd.daemon.control.server import Limits
from srvd.errors import NoDaemon
from srvd.wire.codec import SCHEMA
from srvd.wire.commands import command
from tests.daemon.control.test_requests import Raw
from tests.support.fake_daemon import Fake
from tests.support.waiting import wait_for

BULK = "x" * 3_000


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with Fake(str(tmp_path / "a.sock")) as running:
        yield running


def publish(fake: Fake, count: int, topic: str = "worker", text: str = "") -> None:
    def all_of_them() -> None:
        for number in range(count):
            fake.server.publish(topic, f"{topic}.happened", {"n": number, "text": text})

    fake.do(all_of_them)


def test_events_are_numbered_kept_and_sent_as_they_come(fake: Fake) -> None:
    publish(fake, 2)
    with Client.connect(fake.path) as client:
        events = client.watch()
        assert [next(events)["seq"], next(events)["seq"]] == [1, 2]
        publish(fake, 1, "pool")
        event = next(events)
    assert (event["seq"], event["topic"], event["data"], event["lost"]) == (3, "pool", {"n": 0, "text": ""}, 0)
    assert abs(event["at"] - time.time()) < 60


def test_only_the_topics_that_were_asked_for_come(fake: Fake) -> None:
    publish(fake, 2, "worker")
    publish(fake, 2, "pool")
    publish(fake, 1, "worker")
    with Client.connect(fake.path) as client:
        assert [event["seq"] for event in client.watch(["pool"], follow=False)] == [3, 4]
    with Client.connect(fake.path) as client:
        assert [event["seq"] for event in client.watch(["pool", "worker"], 3, follow=False)] == [4, 5]
    with Client.connect(fake.path) as client:
        assert list(client.watch(["daemon"], follow=False)) == []


def test_only_new_events_can_be_asked_for(fake: Fake) -> None:
    publish(fake, 3)
    with Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="watch", args={"since": -1})
        assert raw.next()["result"] == {"schema": SCHEMA, "oldest": 1, "newest": 3, "last": 3}
        publish(fake, 1)
        assert raw.next()["seq"] == 4


def test_a_number_from_before_a_restart_gives_everything(fake: Fake) -> None:
    publish(fake, 2)
    with Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="watch", args={"since": 5_000})
        assert [raw.next()["type"], raw.next()["seq"], raw.next()["seq"]] == ["ok", 1, 2]


def test_who_asks_for_what_is_forgotten_is_told_how_much_is_lost(fake: Fake) -> None:
    publish(fake, MOST_EVENTS + 50)
    with Client.connect(fake.path) as client:
        events = list(client.watch(follow=False))
    assert (events[0]["topic"], events[0]["lost"], events[0]["seq"]) == ("lost", 50, 50)
    assert [event["seq"] for event in events[1:]] == list(range(51, MOST_EVENTS + 51))


def test_a_slow_watcher_loses_events_and_is_told_how_many(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="watch")
        assert raw.next()["type"] == "ok"
        publish(fake, 5_000, text=BULK)
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["seq"] < 5_000:
            seen.append(raw.next())
    lost = [event["lost"] for event in seen if event["lost"]]
    assert len(lost) == 1
    assert lost[0] + len(seen) - 1 == 5_000
    assert [event["seq"] for event in seen] == sorted({event["seq"] for event in seen})


def test_a_watcher_that_never_reads_is_cut_and_nobody_else_notices(tmp_path: Path) -> None:
    with (
        Fake(str(tmp_path / "b.sock"), limits=Limits(stall=0.5)) as fake,
        Raw(fake.path) as deaf,
        Client.connect(fake.path) as client,
    ):
        deaf.say(type="req", id=1, method="watch")
        wait_for(lambda: client.call("ping"))
        publish(fake, 1_000, text=BULK)
        waits = fake.do(lambda: max(len(link._send_queue) for link in fake.server._connections))
        assert waits < 300 << 10  # the ring is its queue: nothing grows for it
        wait_for(lambda: fake.do(lambda: len(fake.server._connections)) == 1)
        assert client.call("ping")["name"] == "fake"


def test_a_watcher_may_be_idle_for_ever_and_ask_other_things(tmp_path: Path) -> None:
    with (
        Fake(str(tmp_path / "b.sock"), limits=Limits(idle=0.05)) as fake,
        Raw(fake.path) as raw,
        Raw(fake.path) as idle,
    ):
        raw.say(type="req", id=1, method="watch")
        assert raw.next()["type"] == "ok"
        assert (idle.next()["reason"], idle.next()["type"]) == ("idle", "eof")
        raw.say(type="req", id=2, method="ping")
        assert raw.next()["id"] == 2
        publish(fake, 1)
        assert raw.next()["seq"] == 1


def test_a_watch_can_be_taken_back_and_begun_anew(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="watch")
        raw.next()
        raw.say(type="req", id=2, method="watch")
        assert raw.next()["error"]["code"] == "conflict"
        raw.say(type="cancel", id=1)
        answer = raw.next()
        assert (answer["id"], answer["error"]["code"]) == (1, "cancelled")
        publish(fake, 1)
        raw.say(type="req", id=3, method="watch")
        assert [raw.next()["type"], raw.next()["type"]] == ["ok", "ev"]


def farewell(fake: Fake, *, cut: bool) -> None:
    """What an upgrade does to connections, with an event before anybody is there again. `cut`: a farewell that never
    reached its reader."""

    def leave() -> None:
        if cut:
            for link in list(fake.server._connections):
                link.end()
        else:
            fake.server.dismiss("upgrade", "connect again")
        fake.server.publish("worker", "worker.ready", {"text": "between"})

    fake.do(leave)


@pytest.mark.parametrize("cut", [False, True], ids=["told", "cut"])
@pytest.mark.parametrize("since", [0, -1], ids=["all", "new"])
def test_a_line_sees_each_event_once_over_an_upgrade(fake: Fake, since: int, cut: bool) -> None:
    publish(fake, 3)
    with ReconnectingClient(fake.path) as line:
        events = line.watch(["worker"], since, follow=True)
        with ThreadPoolExecutor() as pool:
            first = pool.submit(next, events)
            wait_for(lambda: fake.do(lambda: list(fake.server._requests.subscribers._watches)))
            farewell(fake, cut=cut)
            seen = [first.result(20)["seq"]]
            while seen[-1] < 4:
                seen.append(pool.submit(next, events).result(20)["seq"])
    assert seen == ([4] if since < 0 else [1, 2, 3, 4])


def test_a_line_that_is_cut_by_another_daemon_says_so(fake: Fake) -> None:
    with ReconnectingClient(fake.path) as line:
        fake.do(lambda: setattr(fake.server, "_hello", fake.server._hello._replace(instance="another")))
        farewell(fake, cut=True)
        with pytest.raises(NoDaemon, match="without a word"):
            line.ask(command("ping"), {}, 0.0, print)


def test_an_event_that_cannot_be_spelled_is_logged_and_leaves_no_gap(fake: Fake) -> None:
    fake.do(lambda: fake.server.publish("worker", "worker.ready", {"what": object()}))
    assert fake.logged[-1][0] is Level.ERROR
    publish(fake, 1)
    with Client.connect(fake.path) as client:
        assert [event["seq"] for event in client.watch(follow=False)] == [1]


def test_the_ring_is_bounded_in_events_and_in_bytes() -> None:
    ring = EventLog()
    for _ in range(MOST_EVENTS + 5):
        ring.add(0.0, "worker", "worker.ready", {})
    assert (ring.oldest, ring.newest, len(ring._entries)) == (6, MOST_EVENTS + 5, MOST_EVENTS)
    for _ in range(10):
        ring.add(0.0, "worker", "worker.ready", {"text": "x" * (1 << 20)})
    assert sum(len(entry.frame) for entry in ring._entries.values()) == ring._size <= MOST_BYTES
    assert ring.last_of(frozenset({"pool"})) == 0
