"""Tells by which convention an application wants to be called, WSGI or ASGI: by the setting, else by how it is written.

Calls nothing: what a call returns is known too late.
"""

from __future__ import annotations

from enum import Enum
from types import CodeType, FunctionType, MethodType
from typing import Any

from srvd.errors import LoadFailed

__all__ = ["Interface", "check", "of", "without_effect"]

_IS_COROUTINE = 0x80
"""CO_COROUTINE of a code object; importing `inspect` would cost each zygote ten milliseconds."""

_ASGI = ("scope", "receive", "send")


class Interface(Enum):
    WSGI = "wsgi"
    ASGI = "asgi"


def of(app: object, setting: str) -> Interface:
    """Returns the convention of an application. `setting`: "auto", "wsgi" or "asgi"."""
    if setting != "auto":
        return Interface(setting)
    code = _code(app)
    if code is None:
        return Interface.WSGI
    return Interface.ASGI if _is_coroutine(code) or _parameters(code)[-3:] == _ASGI else Interface.WSGI


def check(app: object, setting: str, target: str) -> Interface:
    """Returns the convention of an application. Raises `LoadFailed` for one that contradicts the setting, and for a
    double callable, the convention of ASGI 2.
    """
    found = of(app, setting)
    if _is_double(app):
        raise LoadFailed(
            f"load {target!r}: it is a double callable, which is called with the scope first (ASGI 2); nothing was "
            "loaded",
            hint="asgiref.compatibility.guarantee_single_callable makes an application of ASGI 3 of it",
        )
    code = _code(app)
    if setting == "wsgi" and code is not None and _is_coroutine(code):
        raise LoadFailed(
            f"load {target!r}: it is an ASGI application (its call is async), and the pool says interface = "
            '"wsgi"; nothing was loaded',
            hint='interface = "auto" finds out by itself; Django has a WSGI side besides: get_wsgi_application()',
        )
    return found


def without_effect(app: object, setting: str, threads: int, root_path: str = "") -> list[str]:
    """Returns a sentence for each setting that means nothing to the application."""
    found = of(app, setting)
    if threads > 1 and found is Interface.ASGI:
        return [f"threads = {threads} has no effect: an ASGI application runs in one event loop of each worker"]
    if root_path and found is Interface.WSGI:
        about = "WSGI applications have their SCRIPT_NAME from X-Forwarded-Prefix of a trusted proxy"
        return [f'root_path = "{root_path}" has no effect: it is for ASGI; {about}']
    return []


def _code(app: Any) -> CodeType | None:
    """Returns the code that a call of the application runs; None if it is not written in Python."""
    while hasattr(app, "func") and hasattr(app, "keywords"):  # functools.partial
        app = app.func
    called = app if isinstance(app, FunctionType | MethodType) else getattr(type(app), "__call__", None)  # noqa: B004 - not whether
    if isinstance(called, MethodType):
        called = called.__func__
    return called.__code__ if isinstance(called, FunctionType) else None


def _parameters(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount]


def _is_coroutine(code: CodeType) -> bool:
    return bool(code.co_flags & _IS_COROUTINE)


def _is_double(app: Any) -> bool:
    if isinstance(app, type):
        call, init = vars(app).get("__call__"), getattr(app, "__init__", None)
        return (
            isinstance(call, FunctionType)
            and _is_coroutine(call.__code__)
            and isinstance(init, FunctionType)
            and init.__code__.co_argcount == 2
        )
    code = _code(app)
    if code is None or _is_coroutine(code):
        return False
    return _parameters(code) in (("scope",), ("self", "scope"))
