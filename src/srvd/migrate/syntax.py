"""What the syntax tree of a gunicorn configuration tells, which executing it does not: lines, dead names, hooks, acts.

Executes nothing. Pure.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from typing import Final

from srvd.record import Record

__all__ = ["HookUse", "Syntax", "read"]

_ACTING: Final = ("subprocess", "requests", "urllib", "httpx", "socket", "shutil", "urlopen", "makedirs", "mkdir",
                  "system", "unlink", "remove", "rmtree", "patch_all", "monkey_patch", "Popen", "write_text",
                  "write_bytes", "touch")  # fmt: skip
"""Names whose call in a module shows that reading it does something."""

_LOGGING: Final = ("log", "logger", "logging", "print")
_DUMPING: Final = ("_current_frames", "dump_traceback", "print_stack", "format_stack", "extract_stack")


class HookUse(Record):
    """A hook that the file defines. does: "nothing", "logs", "dumps" (stacks), or "works". uses: attributes of its
    parameters, as "worker.app".
    """

    does: str
    uses: tuple[str, ...]


class Syntax:
    """A file's syntax tree. Raises `SyntaxError` when made of a text that is not Python."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = ast.parse(text, path)
        self.lines = {name: node.lineno for node, name in reversed(list(_bound(self.tree)))}
        self.acts = tuple(_acts(self.tree))
        self.words = tuple(dict.fromkeys(_words(self.tree)))
        self.patches = any(act.startswith(("monkey.patch_all", "eventlet.monkey_patch")) for act in self.acts)

    def where(self, name: str = "") -> str:
        """Returns "FILE:LINE" of the first assignment to a name; "FILE" if there is none."""
        return f"{self.path}:{self.lines[name]}" if name in self.lines else self.path

    def dead(self, known: Collection[str]) -> list[str]:
        """Returns the names that are assigned at the top, are no settings, and are read nowhere in the file."""
        read = {
            node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
        assigned = {
            name
            for node in ast.walk(self.tree)
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            for name in _names(target)
        }
        inner = {name for node in ast.walk(self.tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                 for child in ast.walk(node) if isinstance(child, (ast.Assign, ast.AnnAssign))
                 for name in _names(child)}  # fmt: skip
        names = assigned - read - set(known) - (inner - set(self.lines))
        return sorted((name for name in names if name in self.lines and name[0] != "_"), key=self.lines.__getitem__)

    def hook(self, name: str) -> HookUse | None:
        """Returns what the function of this name does; None if the file does not define it."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return _use(node)
        return None


def read(path: str, shown: str) -> Syntax:
    """Reads the file at `path`, which the report calls `shown`. Raises `OSError`, `SyntaxError`, `ValueError`."""
    with open(path, encoding="utf-8") as file:
        return Syntax(shown, file.read())


def _bound(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """The names that a module binds, in the order of the file, also under `if` and `try`."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((node, one.asname or one.name.partition(".")[0]) for one in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node, node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from ((node, name) for name in _names(target))


def _names(node: ast.AST) -> Iterator[str]:
    return (one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))


def _acts(tree: ast.Module) -> Iterator[str]:
    """What the module does while it is read, as "os.makedirs()": by itself, and in its functions that it calls."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        for node in _executed(waiting.pop(0)):
            if not isinstance(node, ast.Call):
                continue
            text = ast.unparse(node.func)
            if set(text.split(".")).intersection(_ACTING) or _opens_for_writing(node, text):
                yield f"{text}()"
            called = functions.pop(text, None)  # each once: they may call one another
            if isinstance(called, ast.FunctionDef):
                waiting += called.body
            elif called is not None:
                waiting += [one for method in called.body if isinstance(method, ast.FunctionDef) for one in method.body]


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what is executed with it: of functions, their decorators and defaults alone."""
    yield node
    for name, held in ast.iter_fields(node):
        if name == "body" and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        for one in held if isinstance(held, list) else [held]:
            if isinstance(one, ast.AST):
                yield from _executed(one)


def _opens_for_writing(call: ast.Call, name: str) -> bool:
    if name.rpartition(".")[2] != "open":
        return False
    modes = [*call.args, *(one.value for one in call.keywords if one.arg == "mode")]
    return any(
        isinstance(mode, ast.Constant) and isinstance(mode.value, str) and re.fullmatch("[rwaxbt+]{1,3}", mode.value)
        and set(mode.value) & set("wax+") for mode in modes
    )  # fmt: skip


def _words(tree: ast.Module) -> Iterator[str]:
    """The texts that something is compared with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def _use(function: ast.FunctionDef) -> HookUse:
    parameters = {argument.arg for argument in function.args.args}
    uses = sorted(
        {
            f"{node.value.id}.{node.attr}"
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in parameters
        }
    )
    body = [one for one in function.body if not _is_nothing(one)]
    does = "works"
    if not body:
        does = "nothing"
    elif all(_is_log(one) for one in body):
        does = "logs"
    elif any(isinstance(node, ast.Attribute) and node.attr in _DUMPING for node in ast.walk(function)):
        does = "dumps"
    return HookUse(does, tuple(uses))


def _is_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _is_log(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    return bool(set(ast.unparse(node.value.func).split(".")).intersection(_LOGGING))
