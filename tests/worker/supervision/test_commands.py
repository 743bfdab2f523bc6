"""What a worker does with its commands: boot, probe, serve, drain, leave; none loses an accepted request."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from srvd.demo import app as demo
from srvd.errors import LoadFailed
from srvd.linux import fds
from srvd.linux.sockets import seal
from srvd.wire import links
from tests.support.waiting import stays, wait_for
from tests.support.worker_rig import Client, Rig

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def app(environ: Environ, start: Start) -> Any:
    path = environ["PATH_INFO"]
    if path == "/broken":
        raise RuntimeError("not today")
    if path == "/host":
        start("200 OK" if environ["HTTP_HOST"] == "shop.example" else "400 Bad Request", [])
        return []
    if path == "/secure":
        secure = environ["wsgi.url_scheme"] == "https"
        start("200 OK" if secure else "301 Moved", [] if secure else [("Location", "https://shop.example/secure")])
        return []
    if path == "/exit":
        raise SystemExit
    if path == "/away":
        start("302 Found", [("Location", "/")])
        return []
    if path == "/absent":
        start("404 Not Found", [])
        return [b"no"]
    if path.startswith("/slow"):
        time.sleep(float(path.removeprefix("/slow/")))
    if path == "/big":
        start("200 OK", [])
        return (b"x" * 65_536 for _ in range(256))
    start("200 OK", [])
    return [str(os.getpid()).encode()]


def test_a_worker_boots_into_standby_and_accepts_when_told(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.connect() as early:
        assert rig.says(links.Ready)
        early.send(REQUEST)
        early.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            early.answer()
        early.sock.settimeout(5)
        rig.say(links.Serve())
        assert rig.says(links.Serving)
        assert early.answer().status == 200


def test_a_worker_that_cannot_load_says_why_and_exits(tmp_path: Path) -> None:
    def load() -> object:
        raise LoadFailed("load 'x:y': importing x raised", detail={"traceback": "Traceback: here"})

    with Rig(None, tmp_path, load=load) as rig:
        assert rig.hear() == links.Failed("load 'x:y': importing x raised", "Traceback: here")
        assert rig.wait() == 1


def test_a_reason_of_any_length_reaches_the_daemon_cut(tmp_path: Path) -> None:
    def load() -> object:
        raise LoadFailed("😀" * 1_000_000, detail={"traceback": "😀" * 1_000_000})

    with Rig(None, tmp_path, load=load) as rig:
        failed = rig.hear()
        assert isinstance(failed, links.Failed)
        assert max(len(failed.reason), len(failed.traceback)) <= links.TEXT_LIMIT
        assert rig.wait() == 1


@pytest.mark.parametrize(
    ("path", "healthy", "text"),
    [
        ("/", True, "GET /: 200 OK"),
        ("http://shop.example/host", True, "GET /host: 200 OK"),
        ("/host", False, 'GET /host: 400 Bad Request; perhaps the application refuses the Host "localhost": set'),
        ("https://shop.example/secure", True, "GET /secure: 200 OK"),
        ("/secure", False, "GET /secure: 301 Moved to https://shop.example/secure; that is not healthy unless"),
        ("no path", False, "this is no request"),
        ("/away?x=1", False, "GET /away?x=1: 302 Found"),
        ("/absent", False, "GET /absent: 404 Not Found"),
        ("/broken", False, "not today"),
        ("/exit", False, "SystemExit"),
    ],
)
def test_the_probe_calls_the_application_without_a_socket(tmp_path: Path, path: str, healthy: bool, text: str) -> None:
    with Rig(app, tmp_path) as rig:
        assert rig.says(links.Ready)
        rig.say(links.Probe(path, 5.0))
        said = rig.hear()
        assert isinstance(said, links.Probed)
        assert said.healthy is healthy
        assert text in said.text
        rig.say(links.Serve())
        assert rig.says(links.Serving)


def test_the_demo_application_answers_its_probe_and_its_paths(tmp_path: Path) -> None:
    with Rig(demo, tmp_path) as rig, rig.serving().connect() as client:
        rig.say(links.Probe("/healthz", 5.0))
        assert rig.hear() == links.Probed(True, "GET /healthz: 200 OK")
        assert b"web/1#3" in client.get("/").body
        assert client.get("/sleep/0.01").body == b"slept 0.01 s\n"
        assert client.get("/sleep/1e9").status == 400
        assert client.get("/sleep/nan").status == 400
        assert client.get("/nothing").status == 404
        client.send(b"PUT /echo?q HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nContent-Length: 4\r\n\r\nbody")
        body = client.answer().body
        assert body.startswith(b"PUT /echo?q\n")
        assert b"X-One: 1\n" in body
        assert body.endswith(b"\n\nbody")


def test_a_drained_idle_worker_says_bye_and_exits_0(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving().drain()
        assert rig.says(links.Bye)
        assert rig.wait() == 0


def test_a_worker_in_standby_can_be_drained(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        assert rig.says(links.Ready)
        rig.drain(leaving=True)
        assert rig.says(links.Bye)
        assert rig.wait() == 0


def test_a_request_in_the_application_is_answered_when_the_order_comes(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"GET /slow/0.3 HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: rig.facts().busy)
        rig.drain()
        assert client.answer().status == 200
        # It was promised to be kept before the order was read: one more request is answered.
        assert client.get().headers["connection"] == "close"
        assert client.ended()
        assert rig.says(links.Bye)


def test_an_idle_client_is_answered_once_more_after_a_reload_drain(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as idle, rig.connect() as fresh:
        assert "connection" not in idle.get().headers
        rig.connections(2)
        rig.drain()
        assert stays(lambda: rig.facts().connections == 2, 0.1)  # well into the drain; the order itself is not answered
        for client in (idle, fresh):
            answer = client.get()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert client.ended()
        assert rig.says(links.Bye)
        assert rig.wait() == 0


def test_idle_clients_keep_their_normal_time_in_a_reload_drain(tmp_path: Path) -> None:
    with Rig(app, tmp_path, keepalive_timeout=0.8) as rig, rig.serving().connect() as client:
        client.get()
        began = time.monotonic()
        rig.drain()
        assert client.ended()
        assert time.monotonic() - began > 0.6
        assert rig.says(links.Bye)


def test_a_client_that_is_there_before_the_order_to_drain_is_heard_is_answered(tmp_path: Path) -> None:
    """The kernel wakes one worker for a client. If that one hears the order first, no other one comes to take it."""
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"GET /slow/0.5 HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: rig.facts().began)
        rig.drain()
        with rig.connect() as late:
            late.send(REQUEST)
            assert client.answer().status == 200
            assert late.answer().headers["connection"] == "close"
        assert client.get().headers["connection"] == "close"
        assert rig.wait() == 0


def test_a_draining_worker_accepts_nobody(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.get()
        with rig.connect() as other:
            rig.drain()
            wait_for(lambda: other.ended() if other.get().headers.get("connection") == "close" else None)
        with rig.connect() as late:
            late.send(REQUEST)
            late.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.answer()
        assert client.get().status == 200
        assert rig.wait() == 0


def test_requests_that_came_together_are_all_answered_in_a_drain(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"GET /slow/0.3 HTTP/1.1\r\nHost: a\r\n\r\n" + REQUEST)
        wait_for(lambda: rig.facts().busy)
        rig.drain()
        assert [client.answer().status, client.answer().status] == [200, 200]


def test_a_response_that_waits_for_its_reader_is_finished_in_a_drain(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        rig.drain(leaving=True)
        assert stays(lambda: rig.facts().connections == 1, 0.2)  # the order is obeyed long before the reader goes on
        size = 0
        while piece := int(client.read_until(b"\r\n"), 16):
            size += len(client.read(piece))
            client.read(2)
        assert size == 256 * 65_536


def test_a_request_body_that_is_on_its_way_is_awaited_in_a_drain(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe")
        rig.connections(1)
        rig.drain(leaving=True)
        assert stays(lambda: rig.facts().connections == 1, 0.2)  # as above
        answer = client.send(b"llo").answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert rig.wait() == 0


def test_a_drain_ends_at_its_deadline(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.get()
        began = time.monotonic()
        rig.drain(0.4)
        assert client.ended()
        assert rig.says(links.Bye)
        assert rig.wait() == 0
        assert 0.3 < time.monotonic() - began < 10
        assert "closing 1 connection\n" in rig.log()


def test_a_second_drain_hurries_the_first(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.get()
        rig.drain(30.0)
        rig.drain(0.2)
        assert client.ended()
        assert rig.wait(within=20) == 0


def test_leaving_closes_idle_clients_within_a_second_and_silent_ones_within_two(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as idle, rig.connect() as silent:
        idle.get()
        rig.connections(2)
        began = time.monotonic()
        rig.drain(leaving=True)
        assert idle.ended()
        assert 0.8 < time.monotonic() - began < 1.6
        assert silent.ended()
        assert 1.8 < time.monotonic() - began < 2.8
        assert rig.wait() == 0


def test_leaving_answers_everybody_in_the_backlog(tmp_path: Path) -> None:
    """Twelve requests of 50 ms on a busy worker, when the server stops: none is lost."""
    with Rig(app, tmp_path) as rig, ExitStack() as stack:
        rig.serving()
        clients = [
            stack.enter_context(rig.connect()).send(b"GET /slow/0.05 HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(12)
        ]
        wait_for(lambda: rig.facts().busy)
        seal(rig.listener, None)
        rig.drain(leaving=True)
        answers = [client.answer() for client in clients]
        assert [answer.status for answer in answers] == [200] * 12
        assert answers[-1].headers["connection"] == "close"
        assert rig.says(links.Bye)
        assert rig.wait() == 0


def test_two_leaving_workers_share_the_backlog_and_lose_nobody(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, ExitStack() as stack:
        ours, theirs = fds.link_pair()
        ours.settimeout(10)
        stack.callback(ours.close)
        second = rig.fork(theirs)
        theirs.close()
        assert isinstance(links.decode(ours.recv(links.LIMIT), links.FROM_WORKER), links.Ready)
        rig.serving()
        ours.send(links.encode(links.Serve()))
        assert isinstance(links.decode(ours.recv(links.LIMIT), links.FROM_WORKER), links.Serving)
        request = b"GET /slow/0.02 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        clients = [stack.enter_context(rig.connect()).send(request) for _ in range(40)]
        seal(rig.listener, None)
        for link in (rig.link, ours):
            link.send(links.encode(links.Drain(10.0, True, [])))
        pids = {client.answer().body for client in clients}
        assert pids == {str(rig.pid).encode(), str(second).encode()}
        assert os.waitpid(second, 0)[1] == 0
        assert rig.wait() == 0


def test_more_waiting_clients_than_connections_allowed_are_all_answered(tmp_path: Path) -> None:
    with Rig(app, tmp_path, max_connections=4) as rig, ExitStack() as stack:
        rig.serving()
        clients = [stack.enter_context(rig.connect()).send(b"GET / HTTP/1.0\r\n\r\n") for _ in range(50)]
        rig.drain(leaving=True)
        assert [client.answer().status for client in clients] == [200] * 50
        assert rig.wait() == 0


def test_the_end_of_the_link_drains_and_leaves(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"GET /slow/0.2 HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: rig.facts().busy)
        rig.link.close()
        assert client.answer().status == 200
        client.sock.close()
        assert rig.wait() == 0


def test_sigterm_drains(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"GET /slow/0.2 HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: rig.facts().busy)
        os.kill(rig.pid, signal.SIGTERM)
        os.kill(rig.pid, signal.SIGINT)
        assert client.answer().status == 200
        client.sock.close()
        assert rig.says(links.Bye)
        assert rig.wait() == 0


def test_sigterm_to_a_child_of_the_application_ends_the_child_only(tmp_path: Path) -> None:
    def forking(environ: Environ, start: Start) -> Any:
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.write(theirs, b"up")  # Python drops a signal that comes before its fork is over
            while True:
                time.sleep(0.01)
        os.read(ours, 2)
        os.kill(child, signal.SIGTERM)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        start("200 OK", [])
        return [str(ended).encode()]

    with Rig(forking, tmp_path) as rig, rig.serving().connect() as client:
        assert client.get().body == str(-signal.SIGTERM).encode()
        assert "connection" not in client.get().headers


def test_a_request_rings_the_doorbell_whenever_nobody_watches(tmp_path: Path) -> None:
    """Each one: between two of them the daemon may have looked, found nothing, and gone to sleep again."""
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        rig.bell.watching = True
        client.get()
        rig.bell.watching = False
        for _ in range(2):
            client.get()
            assert rig.says(links.WatchBell)
        rig.bell.watching = True
        client.get()
        rig.link.settimeout(0.1)
        with pytest.raises(TimeoutError):
            rig.hear()


def test_the_scoreboard_tells_requests_bytes_and_connections(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        raw = client.get("/").raw
        client.get("/absent")
        client.send(b"GET /slow/0.2?q HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: rig.facts().line == "GET /slow/0.2")  # a query may hold a secret
        facts = rig.facts()
        assert (facts.busy, facts.connections) == (1, 1)
        client.answer()
        client.send(b"nonsense\r\n\r\n")
        client.answer()
        wait_for(lambda: rig.facts().requests == 4)
        facts = rig.facts()
        assert facts.by_class == (0, 0, 2, 0, 2, 0)
        assert facts.sent > len(raw)


def test_requests_go_on_through_a_drain_and_a_successor(tmp_path: Path) -> None:
    """A reload as clients see it: eight keep-alive clients, the old worker drains, none of them loses a request."""
    with Rig(app, tmp_path) as rig, ExitStack() as stack:
        rig.serving()
        ours, theirs = fds.link_pair()
        ours.settimeout(10)
        stack.callback(ours.close)
        second = rig.fork(theirs)
        theirs.close()
        stack.callback(os.waitpid, second, 0)
        stack.callback(os.kill, second, signal.SIGKILL)
        ours.recv(links.LIMIT)
        lost: list[BaseException] = []
        answered = [0] * 8
        stop = threading.Event()

        def client(number: int) -> None:
            connection: Client | None = None
            while not stop.is_set():
                try:
                    connection = connection or rig.connect()
                    answer = connection.get()
                    answered[number] += 1
                    if answer.headers.get("connection") == "close":
                        connection.sock.close()
                        connection = None
                except (OSError, EOFError) as exc:
                    lost.append(exc)
                    return
            if connection:
                connection.sock.close()

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: min(answered) > 10)
            ours.send(links.encode(links.Serve()))
            ours.recv(links.LIMIT)
            rig.drain()
            assert rig.wait() == 0
            so_far = list(answered)
            wait_for(lambda: all(now > before + 10 for now, before in zip(answered, so_far, strict=True)))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert lost == []


def test_an_exit_in_the_middle_of_a_request_is_a_death(tmp_path: Path) -> None:
    def dying(environ: Environ, start: Start) -> Any:
        os._exit(7)

    with Rig(dying, tmp_path) as rig, rig.serving().connect() as client:
        client.send(REQUEST)
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
        assert rig.wait() == 7


def test_a_bad_word_on_the_link_is_the_end_of_the_link(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving()
        rig.link.send(b"\xc1 nonsense", socket.MSG_NOSIGNAL)
        assert rig.wait() == 0
        assert "the link to the daemon ended" in rig.log()


def test_a_worker_that_still_empties_the_backlog_does_not_say_that_it_has_closed(tmp_path: Path) -> None:
    """It was left alone, and a daemon that comes now tells it to drain while a client in the backlog waits for room."""
    with Rig(app, tmp_path, max_connections=1) as rig, rig.serving().connect() as kept:
        assert kept.get().status == 200
        with rig.connect() as waiting:
            waiting.send(REQUEST)
            rig.drain(leaving=True)
            rig.drain()
            rig.say(links.Ping())
            assert isinstance(rig.hear(), links.Pong)  # messages without fields are equal
            kept.sock.close()
            assert waiting.answer().status == 200
        assert isinstance(rig.hear(), links.Bye)
