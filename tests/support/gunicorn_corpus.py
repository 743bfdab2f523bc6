"""gunicorn's corpus of HTTP requests, good and bad, fetched when a test asks for it: nothing of it is in this tree.

Not a test, and no code of gunicorn runs: what its `.py` files expect is read from their syntax trees. What srvd does
with the cases is system/test_gunicorn_corpus.py's.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

VERSION = "27.0.1"
_FETCH_WITHIN = 180.0
"""Seconds. pip prepares the sdist's metadata, and fetches what that takes."""

_MEMBER = re.compile(r"[^/]+/tests/requests/(valid|invalid)/([^/]+)\.(http|py)")
_ESCAPE = re.compile(rb"\\(?:([rnt0])|x([0-9A-Fa-f]{2}))")
_ESCAPED = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}


class CorpusMissing(Exception):
    """It could not be fetched; the message says why."""


class Expected(NamedTuple):
    """One request as the corpus has it."""

    method: str
    target: str
    version: str  # "HTTP/1.1"
    headers: list[tuple[str, str]]  # names in capitals
    body: bytes
    trailers: list[tuple[str, str]]

    @property
    def path(self) -> str:
        """Percent-decoded, one character a byte, as PEP 3333 has it."""
        path = self.target.partition("?")[0]
        if "://" in path:
            path = "/" + path.partition("://")[2].partition("/")[2]
        return unquote_to_bytes(path).decode("latin-1") if path != "*" else ""

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


class Case(NamedTuple):
    name: str  # "valid/001"
    data: bytes
    expected: list[Expected]  # empty for those that must be refused
    settings: dict[str, Any]  # of gunicorn, that the case is for

    @property
    def valid(self) -> bool:
        return self.name.startswith("valid/")


def fetch(folder: Path) -> Path:
    """The sdist in `folder`, downloaded by pip if it is not there yet. Raises `CorpusMissing`."""
    sdist = folder / f"gunicorn-{VERSION}.tar.gz"
    if sdist.exists():
        return sdist
    command = [
        sys.executable, "-m", "pip", "download", f"gunicorn=={VERSION}", "--no-binary", "gunicorn", "--no-deps",
        "--dest", str(folder), "--quiet", "--disable-pip-version-check", "--retries", "1",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_WITHIN, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise CorpusMissing(f"pip download took longer than {_FETCH_WITHIN} s") from None
    if done.returncode or not sdist.exists():
        last = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        raise CorpusMissing(f"pip download ended with {done.returncode}: {last}")
    return sdist


def cases(sdist: Path) -> list[Case]:
    """Every case, by name."""
    files: dict[str, dict[str, bytes]] = {}
    with tarfile.open(sdist) as archive:
        for member in archive:
            match = _MEMBER.fullmatch(member.name)
            content = archive.extractfile(member) if match else None
            if match and content:
                files.setdefault(f"{match[1]}/{match[2]}", {})[match[3]] = content.read()
    return [_case(name, pair["http"], pair["py"]) for name, pair in sorted(files.items()) if len(pair) == 2]


def _case(name: str, http: bytes, source: bytes) -> Case:
    """The bytes are what is written, without its line ends, and with its escapes resolved."""
    data = _ESCAPE.sub(lambda match: _ESCAPED[match[1]] if match[1] else bytes.fromhex(match[2].decode()),
                       http.replace(b"\n", b""))  # fmt: skip
    reader = _Reader()
    for statement in ast.parse(source).body:
        reader.run(statement)
    if name.startswith("invalid/"):
        return Case(name, data, [], reader.settings)
    found = reader.names["request"]
    wanted = found if isinstance(found, list) else [found]
    return Case(name, data, [_expected(one) for one in wanted], reader.settings)


def _expected(found: dict[str, Any]) -> Expected:
    body = found["body"]
    return Expected(
        found["method"],
        found["uri"],
        "HTTP/{}.{}".format(*found["version"]),
        found["headers"],
        body.encode("latin-1") if isinstance(body, str) else body,
        found.get("trailers", []),
    )


class _Reader:
    """Evaluates the little Python that the expectations are written in; anything else is a `ValueError`."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}

    def run(self, statement: ast.stmt) -> None:
        match statement:
            case ast.ImportFrom():
                self.names.update(dict.fromkeys(_imported(statement)))
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.names[name] = self.value(value)
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="cfg"), attr="set"), args=[key, value])):
                self.settings[self.value(key)] = self.value(value)
            case ast.Expr(value=ast.Constant()):
                return
            case _:
                raise ValueError(ast.unparse(statement))

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Name(id=name):
                return self.names[name]
            case ast.List(elts=elements):
                return [self.value(element) for element in elements]
            case ast.Tuple(elts=elements):
                return tuple(self.value(element) for element in elements)
            case ast.Dict(keys=keys, values=values):
                return {self.value(key): self.value(value) for key, value in zip(keys, values, strict=True) if key}
            case ast.Call(func=ast.Name(id="uri"), args=[target]):
                return self.value(target)
            case ast.Call(func=ast.Name(id="Config"), args=[]):
                return None
            case ast.Call(func=ast.Attribute(value=text, attr=method), args=arguments):
                return _text(self.value(text), method, [self.value(argument) for argument in arguments])
        raise ValueError(ast.unparse(node))


def _imported(statement: ast.ImportFrom) -> Iterator[str]:
    return (alias.asname or alias.name for alias in statement.names)


def _text(text: str | bytes, method: str, arguments: list[Any]) -> str | bytes:
    match text, method:
        case str(), "replace":
            return text.replace(*arguments)
        case str(), "encode":
            return text.encode(*arguments)
        case bytes(), "decode":
            return text.decode(*arguments)
    raise ValueError(f"{method} of {type(text).__name__}")
