"""Server hooks: functions of a pool's module that are called at fixed moments of a worker's and a request's life.

An error in a hook is logged with the hook's name, and ends neither the request nor the worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from srvd.errors import LoadFailed
from srvd.worker.app.loader import import_module, refuse_patched
from srvd.worker.tracebacks import format_traceback

if TYPE_CHECKING:
    from srvd.log import Log

__all__ = ["ABOUT", "PROBE", "Hook", "Hooks", "call", "find", "load"]

PROBE = "srvd.probe"
"""Key in the environ of a health probe, which is not a client's request."""

Hook = Callable[..., object]


class Hooks(NamedTuple):
    """The hooks that a module defines (see `ABOUT`); None for a missing one."""

    on_fork: Hook | None = None
    on_worker_start: Hook | None = None
    on_worker_stop: Hook | None = None
    on_worker_gone: Hook | None = None
    before_request: Hook | None = None
    after_request: Hook | None = None


ABOUT: Mapping[str, tuple[str, str]] = {
    "on_fork": (
        "worker",
        "First of all in a new worker; one that loads the application itself does so after it only with hooks_first",
    ),
    "on_worker_start": ("worker", "The application is loaded; the worker says that it is ready when this returns"),
    "on_worker_stop": ("worker", "The last request is answered, the process ends; not in a worker that is killed"),
    "on_worker_gone": (
        "worker, pid, reason",
        "After every end of a worker, as `signal 9` or `exit 0`: in a process for this call alone, which may last 5 s",
    ),
    "before_request": (
        "environ",
        "Right before the application is called with this environ (scope), on the request's thread and in its context",
    ),
    "after_request": (
        "environ, status, sent, seconds",
        "Right after its close(), on the request's thread and in its context: the status, the bytes given, how long",
    ),
}
"""The arguments of each hook and when it is called; `worker` is a name such as "web/3#17"."""

_HAS_VARARGS = 0x04
"""CO_VARARGS of a code object; importing `inspect` would cost each zygote ten milliseconds."""

_PREFIXES = ("on_", "before_", "after_")

_OF_GUNICORN: Mapping[str, str] = {
    "post_fork": "on_fork",
    "post_worker_init": "on_worker_start",
    "worker_exit": "on_worker_stop",
    "worker_int": "on_worker_stop",
    "pre_request": "before_request",
    "post_request": "after_request",
    "pre_fork": "",
    "when_ready": "",
    "child_exit": "on_worker_gone",
    "worker_abort": "",
    "nworkers_changed": "",
    "pre_exec": "",
    "on_starting": "",
    "on_reload": "",
    "on_exit": "",
    "ssl_context": "",
}
"""srvd's names for hooks of gunicorn; "" for hooks without a counterpart, because srvd has no process like gunicorn's
master to run them."""


class Loaded(NamedTuple):
    hooks: Hooks
    warnings: list[str]  # sentences about names that look like hooks but are not


def load(name: str) -> Loaded:
    """Imports the module `name`, and returns its hooks; none for "". Raises `LoadFailed`, as for an application."""
    if not name:
        return Loaded(Hooks(), [])
    found = find(import_module(name, name), name)
    refuse_patched(name)
    return found


def find(module: ModuleType, name: str) -> Loaded:
    """Returns the hooks of a module. Raises `LoadFailed` for a hook that cannot be called with its arguments."""
    names = vars(module)
    found: Mapping[str, Any] = {hook: names[hook] for hook in Hooks._fields if names.get(hook) is not None}
    for hook, value in found.items():
        if not callable(value):
            raise LoadFailed(f"load the hooks {name}: {hook} is {type(value).__name__}, which cannot be called")
        if not _takes(value, ABOUT[hook][0].count(",") + 1):
            raise LoadFailed(
                f"load the hooks {name}: {hook} does not take the arguments that it is called with",
                hint=f"def {hook}({ABOUT[hook][0]}):",
            )
    return Loaded(Hooks(**found), [*_strangers(names, name)])


def call(hook: Hook | None, name: str, log: Log, *arguments: object) -> None:
    """Calls a hook, if there is one. Does not raise."""
    if hook is None:
        return
    try:
        hook(*arguments)
    except BaseException as exc:  # the hook ends here; sys.exit in it ends neither request nor worker
        log.error(f"the hook {name} failed\n{format_traceback(exc)}")


def _strangers(names: Mapping[str, Any], module: str) -> Iterable[str]:
    for name, value in names.items():
        foreign = name in _OF_GUNICORN
        # A hook of gunicorn may be imported, or be the name of a function; it is one by its own name alone.
        strange = callable(value) or isinstance(value, str) if foreign else _is_like_a_hook(name, value, module)
        if strange and name not in Hooks._fields:
            near = _OF_GUNICORN[name] if foreign else _nearest(name)
            meant = f"; did you mean {near}?" if near else f"; there are {', '.join(Hooks._fields)}"
            yield f"hooks {module}: {name} is no hook and is never called{meant}"


def _takes(hook: Hook, count: int) -> bool:
    """Tells whether a hook can be called with so many positional arguments; True for all but plain functions."""
    if not isinstance(hook, FunctionType):
        return True
    code, most = hook.__code__, hook.__code__.co_argcount
    least = most - len(hook.__defaults__ or ())
    return least <= count and (count <= most or bool(code.co_flags & _HAS_VARARGS))


def _is_like_a_hook(name: str, value: object, module: str) -> bool:
    """Tells whether a name looks like a hook's. An imported function is a tool, and no misspelt hook."""
    return name.startswith(_PREFIXES) and callable(value) and value.__module__ == module


def _nearest(name: str) -> str:
    """Returns the hook that shares most letters and pairs of letters, or "".

    Does not count edits, as `nearest.py` does: a name may lack a whole word, such as on_start for on_worker_start.
    """
    mine = _parts(name)
    score, best = max(((mine & _parts(hook)).total() / (mine | _parts(hook)).total(), hook) for hook in Hooks._fields)
    return best if score >= 0.5 else ""


def _parts(word: str) -> Counter[str]:
    return Counter([*word, *(word[index : index + 2] for index in range(len(word) - 1))])
