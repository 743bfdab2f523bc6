"""Claims about requests on the control socket: every answer is true, and a disconnect changes nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from srvd import __version__
from srvd.client.connection import Client
from srvd.core.model import Level
from srvd.errors import (
    BadArgs,
    BadFrame,
    Busy,
    Cancelled,
    Conflict,
    Deadline,
    InternalError,
    LoadFailed,
    NoSuchOperation,
    RolledBack,
    ShuttingDown,
    SrvdError,
    UnknownMethod,
)
from srvd.wire.codec import RESPONSES, SCHEMA, Decoder, encode
from srvd.wire.commands import COMMANDS, Command, Field
from tests.support.fake_daemon import Fake
from tests.support.waiting import wait_for
from tests.wire.test_commands import FIELDS, WRONG, named, needed


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with Fake(str(tmp_path / "a.sock")) as running:
        yield running


@pytest.fixture
def client(fake: Fake) -> Iterator[Client]:
    with Client.connect(fake.path) as connected:
        yield connected


class Asking(threading.Thread):
    """A call in a thread of its own, since it waits for what the test does next."""

    def __init__(self, path: str, method: str, **args: Any) -> None:
        super().__init__()
        self.path, self.method, self.args = path, method, args
        self.progress: list[tuple[str, int, int]] = []
        self.result: dict[str, Any] = {}
        self.error: SrvdError | None = None
        self.start()

    def run(self) -> None:
        with Client.connect(self.path) as client:
            try:
                self.result = client.call(
                    self.method,
                    self.args,
                    on_progress=lambda m: self.progress.append((m["phase"], m["done"], m["total"])),
                )
            except SrvdError as exc:
                self.error = exc

    def finish(self) -> Asking:
        self.join(10)
        assert not self.is_alive()
        return self


class Raw:
    """A peer that says what it likes."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(path)
        self.decoder = Decoder(RESPONSES)
        self.inbox: list[dict[str, Any]] = []
        assert self.next()["type"] == "hello"

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, **message: Any) -> None:
        self.sock.sendall(encode(message))

    def next(self) -> dict[str, Any]:
        while not self.inbox:
            chunk = self.sock.recv(65536)
            if not chunk:
                return {"type": "eof"}
            self.inbox += self.decoder.feed(chunk)
        return self.inbox.pop(0)


def wait_for_operation(fake: Fake, op: int = 1) -> None:
    wait_for(lambda: op in fake.backend.operations)


def test_the_server_speaks_first_and_says_who_it_is_and_what_the_peer_may(fake: Fake) -> None:
    with Client.connect(fake.path) as client, Client.connect(fake.path) as other:
        assert client.hello.version == __version__
        assert (client.hello.protocol, client.hello.name, client.hello.role) == (1, "fake", "admin")
        assert client.hello.instance == other.hello.instance


def test_a_query_reaches_the_backend_complete_and_its_result_comes_back(fake: Fake, client: Client) -> None:
    assert client.call("workers", {"limit": 2})["total"] == 4
    method, args, peer = fake.backend.asked[-1]
    assert (method, args) == ("workers", {"pool": "", "offset": 0, "limit": 2})
    assert (peer.role, str(peer.actor())) == ("admin", f"{peer.name} (uid {peer.uid}, pid {peer.pid})")


@pytest.mark.parametrize(
    "entry", [e for e in COMMANDS if not (e.changes or e.streams or e.name.startswith("op."))], ids=named
)
def test_every_query_answers_with_the_schema(client: Client, entry: Command) -> None:
    assert client.call(entry.name, needed(entry))["schema"] == SCHEMA


def test_a_question_that_takes_time_is_asked_once_at_a_time_and_can_be_taken_back(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="dump")
        raw.say(type="req", id=2, method="dump")
        raw.say(type="cancel", id=1)
        raw.say(type="req", id=3, method="dump")
        assert [(one["type"], one["id"]) for one in (raw.next(), raw.next(), raw.next())] == [
            ("err", 2),
            ("err", 1),
            ("ok", 3),
        ]
        raw.say(type="req", id=4, method="dump")
    with Raw(fake.path) as raw:  # whoever hangs up is not answered, and nobody else in its place
        raw.say(type="req", id=4, method="ping")
        assert raw.next()["result"]["name"] == "fake"


@pytest.mark.parametrize("place", FIELDS, ids=named)
def test_a_wrong_type_in_any_field_is_refused_and_the_connection_lives(
    fake: Fake, client: Client, place: tuple[Command, Field]
) -> None:
    entry, field = place
    for value in WRONG[field.kind]:
        if value != value or value in (float("inf"), 1 << 64):
            continue  # those end the connection: see test_control_bounds
        with pytest.raises(BadArgs, match=field.name):
            client.call(entry.name, {**needed(entry), field.name: value})
    assert client.call("ping")["name"] == "fake"
    assert [method for method, _, _ in fake.backend.asked] == ["ping"]


def test_an_unknown_method_or_argument_is_refused_and_the_connection_lives(client: Client) -> None:
    with pytest.raises(UnknownMethod, match="relaod"):
        client.call("relaod")
    with pytest.raises(BadArgs, match="unknown argument"):
        client.call("reload", {"pol": "web"})
    client.call("ping")


ENVELOPES: list[dict[str, Any]] = [
    {},
    {"type": "req"},
    {"type": "ok", "id": 1},
    {"type": "req", "id": 0, "method": "ping"},
    {"type": "req", "id": True, "method": "ping"},
    {"type": "req", "id": "1", "method": "ping"},
    {"type": "req", "id": 2**53 + 1, "method": "ping"},
    {"type": "req", "id": 1},
    {"type": "req", "id": 1, "method": 5},
    {"type": "req", "id": 1, "method": ""},
    {"type": "req", "id": 1, "method": "x" * 65},
    {"type": "req", "id": 1, "method": "ping", "args": []},
    {"type": "req", "id": 1, "method": "ping", "args": None},
    {"type": "req", "id": 1, "method": "ping", "extra": 1},
    {"type": "req", "id": 1, "method": "ping", "deadline": "5"},
    {"type": "req", "id": 1, "method": "ping", "deadline": True},
    {"type": "req", "id": 1, "method": "ping", "deadline": -1},
    {"type": "req", "id": 1, "method": "ping", "idem": 5},
    {"type": "req", "id": 1, "method": "ping", "idem": "x" * 65},
    {"type": "cancel"},
    {"type": "cancel", "id": 1, "why": "so"},
]


@pytest.mark.parametrize("envelope", ENVELOPES, ids=str)
def test_an_envelope_that_is_none_gets_one_error_and_the_end(fake: Fake, envelope: dict[str, Any]) -> None:
    with Raw(fake.path) as raw:
        raw.say(**envelope)
        answers = [raw.next(), raw.next(), raw.next()]
    assert [answer["type"] for answer in answers] == ["err", "bye", "eof"]
    assert (answers[0]["id"], answers[0]["error"]["code"]) == (0, "bad_frame")
    with Client.connect(fake.path) as client:
        client.call("ping")


def test_an_order_answers_when_its_operation_has_ended_and_tells_its_progress(fake: Fake) -> None:
    asking = Asking(fake.path, "scale", size=8)
    wait_for_operation(fake)
    fake.do(lambda: fake.server.progress(1, "boot", 3, 8, "web/3#9 is ready"))
    wait_for(lambda: len(asking.progress) == 2)
    assert asking.is_alive()
    fake.do(lambda: fake.backend.finish(1))
    asking.finish()
    assert asking.progress == [("boot", 0, 0), ("boot", 3, 8)]
    assert asking.result["operation"]["state"] == "done"
    assert fake.backend.asked[0][1] == {
        "pool": "",
        "size": 8,
        "delta": None,
        "reset": False,
        "timeout": 0.0,
        "wait": True,
    }


def test_a_failed_operation_answers_with_its_reason_and_its_number(fake: Fake) -> None:
    asking = Asking(fake.path, "reload")
    wait_for_operation(fake)
    problem = LoadFailed("load web@4: ImportError", hint="fix it", detail={"traceback": "Traceback …", "step": "load"})
    fake.do(lambda: fake.backend.finish(1, "failed", problem))
    error = asking.finish().error
    assert isinstance(error, LoadFailed)
    assert (error.message, error.hint) == (problem.message, problem.hint)
    assert error.detail == {"traceback": "Traceback …", "step": "load", "operation": 1, "state": "failed"}


def test_a_rolled_back_operation_is_an_error(fake: Fake) -> None:
    asking = Asking(fake.path, "reload", bake=True)
    wait_for_operation(fake)
    fake.do(lambda: fake.backend.finish(1, "rolled_back", RolledBack("web@4 crashed; web@3 serves again")))
    assert isinstance(asking.finish().error, RolledBack)


def test_without_waiting_the_answer_is_the_operation_as_it_is(client: Client) -> None:
    assert client.call("reload", {"wait": False})["operation"]["state"] == "running"


def test_a_refused_order_answers_at_once_and_is_logged_with_who_asked(fake: Fake, client: Client) -> None:
    with pytest.raises(Busy):
        client.call("scale", {"pool": "busy", "delta": 1})
    level, text, fields = fake.logged[-1]
    assert level is Level.WARNING
    assert "refused" in text
    assert (fields["code"], fields["uid"], fields["method"]) == ("busy", fake.backend.asked[0][2].uid, "scale")


def test_an_order_that_was_taken_is_logged_for_debug_only_and_no_query_is(fake: Fake, client: Client) -> None:
    client.call("status")
    client.call("pause", {"pool": "web", "wait": False})
    text = f"pause pool=web wait=False, asked by {fake.backend.asked[-1][2].actor()}: operation 1"
    assert [(level, text, fields["operation"]) for level, text, fields in fake.logged] == [(Level.DEBUG, text, 1)]


def test_a_deadline_ends_the_waiting_and_not_the_operation(fake: Fake, client: Client) -> None:
    with pytest.raises(Deadline, match="goes on") as waited:
        client.call("reload", deadline=0.05)
    assert waited.value.detail == {"operation": 1, "state": "running"}
    assert fake.backend.operations[1]["state"] == "running"
    fake.do(lambda: fake.backend.finish(1))
    assert client.call("op.wait", {"id": 1})["operation"]["state"] == "done"


def test_a_disconnect_cancels_nothing(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="reload")
        assert raw.next()["type"] == "progress"
    with Client.connect(fake.path) as client:
        assert [op["id"] for op in client.call("op.list")["operations"]] == [1]
    fake.do(lambda: fake.backend.finish(1))


def test_one_connection_may_wait_for_several_operations_and_ask_meanwhile(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="reload")
        raw.say(type="req", id=2, method="scale", args={"size": 2})
        raw.say(type="req", id=3, method="ping")
        assert sorted(raw.next()["id"] for _ in range(3)) == [1, 2, 3]
        fake.do(lambda: fake.backend.finish(2))
        assert (raw.next()["id"], raw.inbox) == (2, [])
        fake.do(lambda: fake.backend.finish(1))
        assert raw.next()["id"] == 1


def test_an_id_that_still_waits_cannot_be_used_again(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="reload")
        raw.next()
        raw.say(type="req", id=1, method="ping")
        assert raw.next()["error"]["code"] == "bad_args"


def test_so_many_requests_of_a_connection_wait_and_no_more(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        for number in range(1, 34):
            raw.say(type="req", id=number, method="reload")
        answers = [raw.next() for _ in range(33)]
    assert [answer["type"] for answer in answers] == ["progress"] * 32 + ["err"]
    assert answers[-1]["error"]["code"] == "busy"
    assert len(fake.backend.operations) == 32  # what cannot be waited for was not begun


def test_a_request_can_be_taken_back_and_its_operation_goes_on(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        raw.say(type="req", id=5, method="reload")
        raw.next()
        raw.say(type="cancel", id=5)
        answer = raw.next()
        assert (answer["id"], answer["error"]["code"], answer["error"]["detail"]) == (5, "cancelled", {"operation": 1})
        raw.say(type="cancel", id=77)  # its answer would be on the way: nothing to say
        raw.say(type="req", id=6, method="ping")
        assert raw.next()["id"] == 6
    assert fake.backend.operations[1]["state"] == "running"


def test_op_wait_ends_as_the_order_would_have(fake: Fake, client: Client) -> None:
    client.call("reload", {"wait": False})
    asking = Asking(fake.path, "op.wait", id=1)
    wait_for(lambda: asking.progress)
    fake.do(lambda: fake.backend.finish(1, "failed", LoadFailed("load web@4")))
    assert isinstance(asking.finish().error, LoadFailed)
    with pytest.raises(LoadFailed):
        client.call("op.wait", {"id": 1})


def test_op_wait_has_a_timeout(fake: Fake, client: Client) -> None:
    client.call("reload", {"wait": False})
    with pytest.raises(Deadline):
        client.call("op.wait", {"id": 1, "timeout": 0.05})


def test_op_show_shows_an_operation_and_refuses_an_unknown_one(fake: Fake, client: Client) -> None:
    client.call("reload", {"wait": False})
    assert client.call("op.show", {"id": 1})["operation"]["kind"] == "reload"
    for method in ("op.show", "op.wait", "op.cancel"):
        with pytest.raises(NoSuchOperation):
            client.call(method, {"id": 99})


def test_op_cancel_answers_when_it_is_cancelled_and_so_does_the_order(fake: Fake, client: Client) -> None:
    asking = Asking(fake.path, "reload")
    wait_for_operation(fake)
    assert client.call("op.cancel", {"id": 1})["operation"]["state"] == "cancelled"
    assert isinstance(asking.finish().error, Cancelled)


def test_op_cancel_of_what_is_done_says_so(fake: Fake, client: Client) -> None:
    client.call("reload", {"wait": False})
    fake.do(lambda: fake.backend.finish(1))
    with pytest.raises(Conflict, match="done before"):
        client.call("op.cancel", {"id": 1})


def test_the_same_key_twice_is_one_effect_and_one_answer(fake: Fake, client: Client) -> None:
    client.call("scale", {"delta": 2, "wait": False}, idem="k1")
    again = Asking(fake.path, "ping").finish()
    assert again.result
    assert client.call("scale", {"delta": 2, "wait": False}, idem="k1")["operation"]["id"] == 1
    fake.do(lambda: fake.backend.finish(1))
    assert client.call("scale", {"delta": 2}, idem="k1")["operation"]["state"] == "done"
    del fake.backend.operations[1]  # the stored reply outlives the history
    assert client.call("scale", {"delta": 2}, idem="k1")["operation"]["id"] == 1
    assert [method for method, _, _ in fake.backend.asked].count("scale") == 1


def test_the_same_key_for_something_else_is_refused(client: Client) -> None:
    client.call("scale", {"delta": 2, "wait": False}, idem="k1")
    with pytest.raises(Conflict, match="another request"):
        client.call("scale", {"delta": 3, "wait": False}, idem="k1")


def test_an_order_that_was_refused_is_not_remembered(fake: Fake, client: Client) -> None:
    fake.backend.raises = Busy("busy")
    with pytest.raises(Busy):
        client.call("reload", {"wait": False}, idem="k1")
    fake.backend.raises = None
    assert client.call("reload", {"wait": False}, idem="k1")["operation"]["id"] == 1


def test_only_so_many_keys_are_remembered_the_latest(fake: Fake, client: Client) -> None:
    for number in range(65):
        client.call("reload", {"wait": False}, idem=f"k{number}")
    assert client.call("reload", {"wait": False}, idem="k64")["operation"]["id"] == 65
    assert client.call("reload", {"wait": False}, idem="k0")["operation"]["id"] == 66


def test_a_bug_in_the_backend_ends_that_connection_and_is_logged_with_its_traceback(fake: Fake) -> None:
    fake.backend.raises = ZeroDivisionError("oh")
    with Client.connect(fake.path) as client, pytest.raises(InternalError, match="oh"):
        client.call("ping")
    level, text, fields = fake.logged[-1]
    assert (level, "ZeroDivisionError" in text) == (Level.ERROR, True)
    assert "query" in str(fields["traceback"])
    fake.backend.raises = None
    with Client.connect(fake.path) as client:
        client.call("ping")


def test_an_answer_over_the_limit_becomes_an_error_that_says_how_to_ask_for_less(fake: Fake, client: Client) -> None:
    fake.backend.pools = [{"name": "x" * 1_000_000} for _ in range(5)]
    with pytest.raises(BadArgs, match="limit") as refused:
        client.call("status")
    assert "offset" in refused.value.hint
    client.call("ping")


def test_an_answer_that_cannot_be_spelled_is_a_bug_and_says_so(fake: Fake, client: Client) -> None:
    fake.backend.pools = [{"name": "web", "desired": 1 << 70}]
    with pytest.raises(InternalError):
        client.call("status")
    assert fake.logged[-1][0] is Level.ERROR


def test_a_daemon_that_goes_answers_who_waits_and_says_bye_to_all(tmp_path: Path) -> None:
    def answer(end: Callable[[Fake], object]) -> Asking:
        with Fake(str(tmp_path / "b.sock")) as fake:
            asking = Asking(fake.path, "stop")
            wait_for_operation(fake)
            end(fake)
        return asking.finish()

    assert isinstance(answer(lambda fake: None).error, ShuttingDown)
    ended = answer(lambda fake: fake.backend.operations[1].update(state="done"))
    assert ended.result["operation"]["state"] == "done"


def test_a_peer_that_only_listens_hears_why_the_connection_ends(tmp_path: Path) -> None:
    with Fake(str(tmp_path / "b.sock")) as fake:
        raw = Raw(fake.path)
    with raw:
        assert [raw.next()["type"], raw.next()["type"]] == ["bye", "eof"]


def test_garbled_answers_are_told_from_a_daemon_that_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "c.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        for said, expected in ((b"HTTP/1.1 400\r\n\r\n", BadFrame), (b"", SrvdError)):
            connecting = threading.Thread(target=lambda said=said: _say_and_close(listener, said))
            connecting.start()
            with pytest.raises(expected):
                Client.connect(path)
            connecting.join()


def _say_and_close(listener: socket.socket, said: bytes) -> None:
    sock, _ = listener.accept()
    with sock:
        sock.sendall(said)
