"""By which convention an application is called: how it is written, or the setting."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from srvd.errors import LoadFailed
from srvd.worker.app.interface import Interface, check, without_effect


async def coroutine(scope: Any, receive: Any, send: Any) -> None: ...


def passes_on(scope: Any, receive: Any, send: Any) -> Any:
    return coroutine(scope, receive, send)


def wsgi(environ: Any, start: Any) -> Any: ...


class Async:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class Wraps:
    def __call__(self, scope: Any, receive: Any, send: Any) -> Any: ...


class Wsgi:
    def __call__(self, environ: Any, start: Any) -> Any: ...


class WsgiByInit:
    def __init__(self, environ: Any, start: Any) -> None: ...

    def __iter__(self) -> Any: ...


@pytest.mark.parametrize(
    "app", [coroutine, passes_on, Async(), Async().method, Wraps(), partial(coroutine), partial(Async())]
)
def test_what_is_async_or_takes_a_scope_is_asgi(app: object) -> None:
    assert check(app, "auto", "shop:app") is Interface.ASGI
    assert check(app, "asgi", "shop:app") is Interface.ASGI


@pytest.mark.parametrize("app", [wsgi, Wsgi(), WsgiByInit, partial(wsgi), len])
def test_all_else_is_wsgi(app: object) -> None:
    assert check(app, "auto", "shop:app") is Interface.WSGI
    assert check(app, "asgi", "shop:app") is Interface.ASGI  # as the setting says


@pytest.mark.parametrize("app", [coroutine, Async()])
def test_an_async_application_in_a_pool_of_wsgi_is_refused(app: object) -> None:
    with pytest.raises(LoadFailed) as refused:
        check(app, "wsgi", "shop:app")
    assert "it is an ASGI application" in refused.value.message


class Double:
    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class DoubleRouter:
    def __call__(self, scope: Any) -> Any: ...


def double(scope: Any) -> Any: ...


@pytest.mark.parametrize("app", [Double, DoubleRouter(), double])
@pytest.mark.parametrize("setting", ["auto", "asgi"])
def test_a_double_callable_is_refused_by_name(app: object, setting: str) -> None:
    with pytest.raises(LoadFailed) as refused:
        check(app, setting, "shop:app")
    assert "double callable" in refused.value.message
    assert "guarantee_single_callable" in refused.value.hint


def test_settings_of_the_other_convention_are_told() -> None:
    def wsgi(environ: Any, start_response: Any) -> Any: ...

    async def asgi(scope: Any, receive: Any, send: Any) -> None: ...

    assert without_effect(wsgi, "auto", 4, "") == []
    assert without_effect(asgi, "auto", 1, "/shop") == []
    assert "root_path" in without_effect(wsgi, "auto", 4, "/shop")[0]
    assert "threads = 4" in without_effect(asgi, "auto", 4, "/shop")[0]
