"""The name of an application: `MODULE`, `MODULE:ATTRIBUTE` or `MODULE:FACTORY(ARGUMENTS)`.

Imports no application: `worker/app/loader.py` does. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from srvd.record import Record

__all__ = ["USUAL", "Target", "guess", "parse"]

USUAL: Final = ("application", "app")
"""The attributes that a module without one is looked through for, in this order: Django's generator says
`application`, as gunicorn and PEP 3333 do, Flask's pages say `app`."""


class Target(Record):
    """attribute: dotted; "": one of `USUAL`. called: whether it is a factory, called with these literal arguments."""

    module: str
    attribute: str
    called: bool
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


def parse(text: str) -> Target:
    """Returns the parts of the name. Raises `ValueError` with a sentence."""
    module, colon, attribute = text.partition(":")
    if not is_dotted(module) or (not colon and module.endswith(".py")):
        msg = f"{module!r} is no name of a module"
        raise ValueError(msg)
    path, called, _ = attribute.partition("(")
    if colon and not is_dotted(path):
        msg = f"{path!r} is no name of an attribute"
        raise ValueError(msg)
    arguments, keywords = _arguments(attribute) if called and attribute != f"{path}()" else ((), {})
    return Target(module, path, bool(called), arguments, keywords)


def guess(text: str) -> str:
    """Returns the name that was probably meant; "" without a guess."""
    module, _, attribute = text.partition(":")
    module = module.removesuffix(".py").replace("/", ".").strip(".")
    path, called, _ = attribute.partition("(")
    if not is_dotted(module):
        return ""
    path = path if is_dotted(path) else "application" if module.endswith("wsgi") else "app"
    return f"{module}:{path}{'()' if called and attribute.endswith('()') else ''}"


def is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _arguments(call: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call as it is written. Raises `ValueError` if they are no literals."""
    import ast  # here: it costs 4 ms, and few factories have arguments

    msg = f"{call!r} is no call with plain values, such as create_app('prod', debug=False)"
    try:
        node = ast.parse(call, mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, (ast.Name, ast.Attribute)):
            raise ValueError(msg)
        named = {one.arg: ast.literal_eval(one.value) for one in node.keywords if one.arg is not None}
        if len(named) < len(node.keywords):  # **more
            raise ValueError(msg)
        return tuple(ast.literal_eval(one) for one in node.args), named
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as exc:
        raise ValueError(msg) from exc
