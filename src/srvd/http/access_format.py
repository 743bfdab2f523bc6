"""The formats of the access log: their names, their atoms, and the pieces that a format consists of.

Spells no line (`access_line.py`). The atoms are those of gunicorn, so that a format moves over as it is; `ATOMS` says
what each one means.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ATOMS", "PRESETS", "explain_problem", "pieces_of"]

PRESETS = {
    "common": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s',
    "combined": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    "json": "",
}
"""What the named formats stand for; JSON is no format of atoms."""

ATOMS: Mapping[str, str] = {
    "h": "address of the client",
    "l": "always -",
    "u": "user of Basic authentication",
    "t": "when the request began, [02/Jan/2026:15:04:05 +0100]",
    "r": "request line",
    "s": "status",
    "m": "method",
    "U": "path, decoded",
    "q": "query string",
    "H": "protocol",
    "B": "bytes of the response without its head",
    "b": "the same, - for none",
    "f": "Referer",
    "a": "User-Agent",
    "T": "duration in whole seconds",
    "D": "duration in microseconds",
    "M": "duration in milliseconds",
    "L": "duration in seconds with six decimals",
    "p": "pid of the worker in angle brackets",
    "{NAME}i": "field NAME of the request",
    "{NAME}o": "field NAME of the response, as the application gave it",
    "{NAME}e": "NAME in the environ",
}


def explain_problem(text: str) -> str:
    """Why this is no format; "" if it is one."""
    try:
        pieces_of(PRESETS.get(text, text))
    except ValueError as exc:
        return str(exc)
    return ""


def pieces_of(text: str) -> list[tuple[str, bool]]:
    """The pieces of a format: literal text, and names of atoms (True). Raises `ValueError`.

    `%(D)d` is the same as `%(D)s`, for formats of gunicorn.
    """
    pieces: list[tuple[str, bool]] = []
    at = 0
    while (found := text.find("%", at)) >= 0:
        pieces.append((text[at:found], False))
        if text[found + 1 : found + 2] == "%":
            pieces.append(("%", False))
            at = found + 2
            continue
        end = text.find(")", found)
        if text[found + 1 : found + 2] != "(" or end < 0 or text[end + 1 : end + 2] not in ("s", "d"):
            msg = f"{text[found : found + 8]!r} is no atom; one is written %(h)s, and a percent sign %%"
            raise ValueError(msg)
        name = text[found + 2 : end]
        if not _is_atom(name):
            msg = f"there is no atom %({name})s; there are {', '.join(ATOMS)}"
            raise ValueError(msg)
        pieces.append((name, True))
        at = end + 2
    pieces.append((text[at:], False))
    if not all(piece.isprintable() for piece, _ in pieces):
        msg = "a format is one line of printable characters"
        raise ValueError(msg)
    return [(piece, is_atom) for piece, is_atom in pieces if piece]


def _is_atom(name: str) -> bool:
    named = len(name) > 3 and name[0] == "{" and name[-2] == "}" and name[-1] in "ioe"
    return named or (name in ATOMS and name[0] != "{")
