"""What a process tells the watcher, and what the watcher tells it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from srvd.wire import paths, watching
from srvd.worker.develop import page
from srvd.worker.develop.reports import Session, trace_files


@pytest.fixture
def pair() -> Iterator[tuple[Session, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Session(ours), theirs


def test_an_order_before_an_answer_is_no_answer(pair: tuple[Session, socket.socket]) -> None:
    """An ASGI startup that fails asks in a worker that may be told to hold clients at the same time."""
    session, watcher = pair
    watcher.sendall(watching.spell({"order": "hold"}) + watching.spell({"page": True}))
    assert session.ask(files=[], failed="x") == {"page": True}
    assert session.orders() == ["hold"]
    assert session.orders() == []
    watcher.close()
    assert session.orders() is None


def test_without_a_watcher_nothing_is_told() -> None:
    assert Session.connect(paths.watcher_address(2**22 + 1)) is None


def test_a_long_or_foreign_line_is_refused() -> None:
    with pytest.raises(ValueError, match="object"):
        watching.lines(bytearray(b"[]\n"))
    with pytest.raises(ValueError, match="too long"):
        watching.lines(bytearray(b"x" * (watching.LIMIT + 1)))
    buffer = bytearray(b'{"a": 1}\n{"b"')
    assert watching.lines(buffer) == [{"a": 1}]
    assert buffer == b'{"b"'


def test_names_that_are_no_text_travel() -> None:
    name = "\udcff.py"
    assert watching.lines(bytearray(watching.spell({"files": [name]}))) == [{"files": [name]}]


def test_the_file_of_a_syntax_error_is_known() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile("def (", "/shop/views.py", "exec")
    assert "/shop/views.py" in trace_files(caught.value)


def test_the_page_of_an_asgi_pool_refuses_all_but_requests() -> None:
    app = page.make("Traceback\nError: <x>", "asgi")
    assert callable(app)
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "headers": [(b"accept", b"text/html")]}, None, send))
    assert sent[0]["status"] == 500
    assert b"&lt;x&gt;" in bytes(sent[1]["body"])  # type: ignore[call-overload]  # of any type
    with pytest.raises(RuntimeError):
        asyncio.run(app({"type": "websocket", "headers": []}, None, send))
