"""Loads an application from its name: a module, "module:attribute" or "module:factory()".

Does not test what it loads: only a call shows whether the object serves requests.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType, ModuleType, TracebackType
from typing import Any

from srvd.config.spelling.target import USUAL, Target, parse
from srvd.errors import LoadFailed
from srvd.http.h1.sink import Scope
from srvd.linux import originals
from srvd.linux.processes.identity import closed_folder
from srvd.quoting import quoted
from srvd.worker.app import urlconf
from srvd.worker.app.interface import Interface, check
from srvd.worker.tracebacks import format_traceback

__all__ = ["Application", "import_module", "load", "refuse_patched"]

Application = Callable[[Scope, Any], Iterable[bytes]]
"""The calling convention of PEP 3333: takes environ and start_response, returns the blocks of the body."""

_HAS_VARARGS = 0x04
"""CO_VARARGS of a code object; importing `inspect` would cost each zygote ten milliseconds."""

_OF_TYPING = ("typing", "types", "builtins", "functools", "collections.abc")
"""Modules that define types of callable objects which a module merely imports: Any, list[int], partial, len."""


def load(target: str, interface: str = "auto") -> object:
    """Imports the module of `target`, and returns the object named by it, or the object's result if the name is a call.
    A module alone stands for its `application` or `app`. `interface`: the setting.

    Raises `LoadFailed` with a sentence, a hint and, if foreign code raised, the traceback as "traceback" in its detail.
    An application that calls `sys.exit` during the import fails to load, too.
    """
    try:
        wanted = parse(target)
    except ValueError as exc:
        raise LoadFailed(
            f"load {target!r}: this does not name an application ({exc}); nothing was loaded",
            hint="write MODULE:ATTRIBUTE, such as shop.wsgi:application, or MODULE:FACTORY()",
        ) from exc
    module = import_module(wanted.module, target)
    found = _attribute(module, wanted.attribute or _usual(module, target), target)
    if wanted.called:
        found = _call(found, wanted, target)
    if not callable(found):
        raise LoadFailed(
            f"load {target!r}: it is {_described(found)}, which cannot be called; an application must be callable",
            hint="name the application itself, or its factory with () after it",
        )
    if check(found, interface, target) is Interface.WSGI:
        _check_arguments(found, target)
    _resolve_urls(target)
    refuse_patched(target)
    return found


def _check_arguments(found: object, target: str) -> None:
    """Raises `LoadFailed` for a function that cannot take the two arguments of an application, like a factory."""
    call, bound = (found, 0) if isinstance(found, FunctionType) else (getattr(type(found), "__call__", None), 1)  # noqa: B004
    if isinstance(found, MethodType):
        call = found.__func__
    if not isinstance(call, FunctionType):
        return
    code = call.__code__
    most = code.co_argcount - bound
    least = most - len(call.__defaults__ or ())
    if least > 2 or (most < 2 and not code.co_flags & _HAS_VARARGS):
        count = f"{least} argument{'s' if least != 1 else ''}" if least == most else f"{least} to {most} arguments"
        factory = f"did you mean {target}()? With () it is called once, and what it gives is the application"
        raise LoadFailed(
            f"load {target!r}: it takes {count}, and an application takes two (environ, start_response); nothing was "
            "loaded",
            hint=factory if least <= 0 and not target.endswith(")") else "",
        )


def refuse_patched(target: str) -> None:
    """Raises `LoadFailed` if gevent or eventlet has replaced threads, sockets and clocks by its own, and the pool's
    engine is another.
    """
    for name, module, told, hint in (
        ("gevent", "gevent.monkey", "saved", 'write engine = "gevent" in the pool, and srvd patches before it loads'),
        ("eventlet", "eventlet.patcher", "already_patched", 'use gevent: take out the patch, write engine = "gevent"'),
    ):
        if getattr(sys.modules.get(module), told, None) and name != originals.replaced_by():
            raise LoadFailed(
                f"load {target!r}: {name} has patched this process (monkey patching of threads, sockets, select), and "
                f"the pool's engine is {originals.replaced_by() or 'threads'}; nothing was loaded",
                hint=f"{hint}; or take out the patch and use threads: `threads = 32` in the pool, or --threads 32, "
                "answers as many requests at a time",
            )


def _resolve_urls(target: str) -> None:
    try:
        urlconf.resolve()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # as for a module
        hint = "Django would import this at the first request; srvd does at the load, so that a broken view ends here"
        raise _failed(target, "resolving Django's URLconf raised", exc, hint) from exc


def import_module(name: str, target: str) -> ModuleType:
    """Imports the module `name`, and returns it. Raises `LoadFailed`, which names `target`."""
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # foreign code ends here; sys.exit in a module must not end the zygote
        raise _failed(target, f"importing {name} raised", exc, _closed() or _about_missing(name, exc)) from exc


def _about_missing(name: str, exc: BaseException) -> str:
    """Returns a hint for a missing module, if importing `name` has raised `exc` for that; else ""."""
    if not isinstance(exc, ModuleNotFoundError) or not exc.name:
        return ""
    if f"{name}.".startswith(f"{exc.name}."):
        return f"it was looked for in {os.getcwd()} first; check its spelling, `chdir` and `pythonpath`"
    package = exc.name.partition(".")[0]
    if package in sys.modules:  # a part of it is missing, not the package
        return ""
    return f"{sys.prefix} has no {package}: install it there, or name another environment's program in `python`"


def _closed() -> str:
    """Returns a hint if the pool's user may not enter a folder of Python's or installed modules; "" otherwise. Python
    itself only reports that there is no such module.
    """
    for path in (os.__file__, *(f"{folder}/" for folder in sys.path)):
        folder = closed_folder(path)
        if folder:
            return (
                f"uid {os.geteuid()} may not enter {folder}, which is on the way to {path.rstrip('/')}: let it, or use "
                "a Python and a virtual environment where the pool's `user` may go"
            )
    return ""


def _usual(module: ModuleType, target: str) -> str:
    """Returns the attribute that a module without one stands for. Raises `LoadFailed`."""
    for name in USUAL:
        if callable(getattr(module, name, None)):
            return name
    likely = [key for key, value in vars(module).items() if _is_likely(value, module) and key[0] != "_"]
    raise LoadFailed(
        f"load {target!r}: the module has neither {' nor '.join(USUAL)}; nothing was loaded",
        hint=f"name it, as in {target}:{likely[0]}" if likely else "write MODULE:ATTRIBUTE",
    )


def _attribute(module: ModuleType, path: str, target: str) -> object:
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            likely = [key for key, value in vars(module).items() if _is_likely(value, module) and key[0] != "_"]
            raise LoadFailed(
                f"load {target!r}: {_described(found)} has no {part!r}; nothing was loaded",
                hint=f"{module.__name__} has {', '.join(likely[:8])}" if likely else "",
            ) from exc
    return found


def _is_likely(value: object, module: ModuleType) -> bool:
    """Tells whether `value` may be the application that was meant: a function defined in the module, or a
    callable object that is neither function nor class.
    """
    kind = type(value)  # not its __class__: a proxy object of a framework would load the object behind it
    if kind is FunctionType:
        return getattr(value, "__module__", "") == module.__name__
    return callable(value) and not issubclass(kind, type) and kind.__module__ not in _OF_TYPING


def _call(factory: object, wanted: Target, target: str) -> object:
    if not callable(factory):
        raise LoadFailed(f"load {target!r}: {_described(factory)} cannot be called", hint="leave out the ()")
    try:
        made: object = factory(*wanted.arguments, **wanted.keywords)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # as above
        raise _failed(target, "the factory raised", exc, "") from exc
    return made


def _described(found: object) -> str:
    return f"module {found.__name__}" if isinstance(found, ModuleType) else f"an object of type {type(found).__name__}"


def _failed(target: str, what: str, exc: BaseException, hint: str) -> LoadFailed:
    exc.__traceback__ = _foreign_part(exc.__traceback__)
    text = format_traceback(exc)
    # The last line has what users want to know first; notes and the text of a SyntaxError may be above it.
    last = text.rpartition("\n")[2].strip()
    detail = {"traceback": text} if "\n" in text else {}  # a single line is in the sentence already
    return LoadFailed(f"load {target!r}: {what} {quoted(last)}; nothing was loaded", hint=hint, detail=detail)


def _foreign_part(trace: TracebackType | None) -> TracebackType | None:
    """Returns the traceback without the frames before the first foreign one, which are not the application's code."""
    own = (__file__, urlconf.__file__, importlib.import_module.__code__.co_filename)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in own and not file.startswith("<frozen importlib"):
            break
        trace = trace.tb_next
    return trace
