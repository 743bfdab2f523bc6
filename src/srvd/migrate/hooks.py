"""Makes a module of srvd's hooks of the hooks in a gunicorn configuration.

The functions are moved as they stand, with what they need of the file; short functions with srvd's names call them.
Executes nothing. Pure.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from srvd.config.gunicorn import OPTIONS
from srvd.migrate.report import Finding
from srvd.migrate.syntax import HookUse, Syntax
from srvd.record import Record

__all__ = ["MODULE", "Moved", "move"]

MODULE: Final = "srvd_hooks"

_ABILITIES: Final[Mapping[str, tuple[str, ...]]] = {
    "Server": ("log",),
    "Worker": ("log", "pid"),
    "Request": ("method", "path", "uri", "query", "headers"),
    "Response": ("status", "status_code"),
}
"""What the stand-ins for gunicorn's objects have."""

_KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "post_fork": ("on_fork(worker)", "Server Worker", "Server(), Worker()"),
    "post_worker_init": ("on_worker_start(worker)", "Worker", "Worker()"),
    "worker_int": ("on_worker_stop(worker)", "Worker", "Worker()"),
    "worker_exit": ("on_worker_stop(worker)", "Server Worker", "Server(), Worker()"),
    "child_exit": ("on_worker_gone(worker, pid, reason)", "Server Worker", "Server(), Worker(pid)"),
    "pre_request": ("before_request(environ)", "Worker Request", "Worker(), Request(environ)"),
    "post_request": (
        "after_request(environ, status, sent, seconds)",
        "Worker Request dict Response",
        "Worker(), Request(environ), environ, Response(status)",
    ),
}
"""Of each hook that moves: the function of srvd, the kinds of its parameters, and the arguments that it is given."""

_STAND_INS: Final = '''
class Server:
    """Stands for gunicorn's arbiter."""

    log = logging.getLogger("gunicorn.error")


class Worker:
    """Stands for gunicorn's worker."""

    log = logging.getLogger("gunicorn.error")

    def __init__(self, pid=0):
        self.pid = pid or os.getpid()


class Request:
    """Stands for gunicorn's request."""

    def __init__(self, environ):
        self.method = environ["REQUEST_METHOD"]
        self.path = environ["PATH_INFO"]
        self.query = environ["QUERY_STRING"]
        self.uri = environ["RAW_URI"]
        self.headers = [(name[5:].replace("_", "-"), text) for name, text in environ.items() if name[:5] == "HTTP_"]


class Response:
    """Stands for gunicorn's response."""

    def __init__(self, status):
        self.status = status
        self.status_code = int(str(status).split()[0])
'''


class Moved(Record):
    """text: of the module; "": there is nothing to move."""

    text: str
    findings: tuple[Finding, ...]


def move(syntax: Syntax, values: Mapping[str, Any]) -> Moved:
    """Returns the module for the hooks among the values of a file, and what is to be told of the others."""
    findings: list[Finding] = []
    moving: list[str] = []
    imports: list[str] = []
    for name, value in values.items():
        if name not in OPTIONS or OPTIONS[name].kind != "hook" or not value:
            continue
        use = syntax.hook(name)
        if use is None:
            origin = _origin(value)
            category = "lost" if name not in _KINDS else ""
            if not origin:
                category, origin = "lost", ("", "it is made in a way that cannot be moved")
            if category:
                findings.append(Finding(category, syntax.where(name), f"{name}: {OPTIONS[name].about or origin[1]}"))
            else:
                imports.append(f"from {origin[0]} import {origin[1]} as _{name}")
                moving.append(name)
            continue
        finding = _judge(name, use, syntax.where(name))
        if finding is not None:
            findings.append(finding)
        else:
            moving.append(name)
    if "worker_int" in moving and "worker_exit" in moving:
        moving.remove("worker_int")
        text = "worker_int: it is not called, since worker_exit moves: a worker of srvd leaves in one way"
        findings.append(Finding("changed", syntax.where("worker_int"), text))
    return Moved(_module(syntax, moving, imports) if moving else "", tuple(findings))


def _judge(name: str, use: HookUse, where: str) -> Finding | None:
    """What is told of a hook that does not move; None: it moves."""
    if use.does in ("nothing", "logs"):
        return Finding("needless", where, f"{name}: it does nothing, or logs what srvd logs")
    if use.does == "dumps":
        return Finding("needless", where, f"{name}: `srvctl dump` and `srvctl why` have the stacks")
    if name not in _KINDS:
        return Finding("lost", where, f"{name}: {OPTIONS[name].about}")
    able = {part for kind in _KINDS[name][1].split() for part in _ABILITIES.get(kind, ())}
    unable = [one for one in use.uses if one.partition(".")[2] not in able and not one.startswith("environ.")]
    if unable:
        return Finding("lost", where, f"{name}: it uses {', '.join(unable)}, which hooks of srvd do not have")
    return None


def _origin(value: Any) -> tuple[str, str] | None:
    """Module and name of a hook that the file imports, or names by a text."""
    if isinstance(value, str) and "." in value:
        module, _, attribute = value.rpartition(".")
        return module, attribute
    if isinstance(value, dict) and isinstance(value.get("hook"), list):
        module, attribute = value["hook"]
        if module not in ("", "__config__") and attribute.isidentifier():
            return str(module), str(attribute)
    return None


def _module(syntax: Syntax, moving: Sequence[str], imports: Sequence[str]) -> str:
    functions = "\n\n\n".join(_adapters(moving))
    stand_ins = [
        one for one in _STAND_INS.strip("\n").split("\n\n\n") if f"{one.split()[1].partition(':')[0]}(" in functions
    ]
    needed = list(_needed(syntax, [name for name in moving if syntax.hook(name) is not None]))
    imported = [text for text in needed if text.startswith(("import ", "from "))]
    head = dict.fromkeys(["import logging", "import os", *imported, *imports])
    parts = [
        f'"""Hooks of srvd, moved from {syntax.path} by `srvd import`."""\n\n' + "\n".join(head),
        *stand_ins,
        *(text for text in needed if text not in imported),
        functions,
    ]
    return "\n\n\n".join(parts) + "\n"


def _adapters(moving: Sequence[str]) -> Iterator[str]:
    by_head: dict[str, list[str]] = {}
    for name in moving:
        head, _, arguments = _KINDS[name]
        by_head.setdefault(head, []).append(f"    _{name}({arguments})")
    for head, calls in by_head.items():
        yield f"def {head}:\n" + "\n".join(calls)


def _needed(syntax: Syntax, names: Sequence[str]) -> Iterator[str]:
    """The statements of the file that these functions need, in its order."""
    bound = {name: node for node in syntax.tree.body for name in _names_of(node)}
    wanted, waiting = set[ast.stmt](), list(names)
    while waiting:
        node = bound.get(waiting.pop())
        if node is None or node in wanted:
            continue
        wanted.add(node)
        waiting += [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)]
    for node in syntax.tree.body:
        if node in wanted:
            text = _source(syntax.text, node)
            # A hook's own name would be told at each start as one of gunicorn's.
            hook = isinstance(node, ast.FunctionDef) and node.name in names
            yield re.sub(r"^((?:async )?def )", r"\1_", text, count=1, flags=re.MULTILINE) if hook else text


def _source(text: str, node: ast.stmt) -> str:
    """The lines of a statement at the top of a file, with its decorators, and without a comment behind its last one."""
    decorators = getattr(node, "decorator_list", [])
    if not decorators:
        return ast.get_source_segment(text, node) or ast.unparse(node)
    lines = text.splitlines()
    return "\n".join(lines[decorators[0].lineno - 1 : node.end_lineno])


def _names_of(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (one.asname or one.name.partition(".")[0] for one in node.names)
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    else:
        yield from (one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
