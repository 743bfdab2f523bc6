"""The application that answers while the code does not load: with its traceback, as a page or as text.

Only a pool under development serves it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from html import escape
from typing import Any

__all__ = ["make"]

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>The code does not load</title>
<style>body{{font:15px/1.5 sans-serif;margin:2em;color:#222;background:#fff}}pre{{background:#f4f4f4;padding:1em;
overflow:auto;border-left:4px solid #c33}}</style>
<h1>{title}</h1>
<pre>{text}</pre>
<p>srvd waits for a file to be saved; then load this page again. <code>--reload=safe</code> would serve the last
code that has loaded.</p></html>
"""


def make(text: str, interface: str) -> object:
    """Returns an application that answers each request with 500 and this text. `interface`: the pool's setting."""
    body = _Body(text)
    return _asgi(body) if interface == "asgi" else _wsgi(body)


class _Body:
    def __init__(self, text: str) -> None:
        title = text.strip().rpartition("\n")[2].strip()
        self._html = _PAGE.format(title=escape(title), text=escape(text)).encode("utf-8", "backslashreplace")
        self._text = f"{text}\n".encode("utf-8", "backslashreplace")

    def answer(self, accept: str) -> tuple[list[tuple[str, str]], bytes]:
        """Returns headers and body: a page for a browser, text for another client."""
        kind, body = ("html", self._html) if "text/html" in accept else ("plain", self._text)
        return [
            ("Content-Type", f"text/{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ], body


def _wsgi(body: _Body) -> Callable[[dict[str, Any], Callable[..., object]], Iterable[bytes]]:
    def broken(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        headers, data = body.answer(environ.get("HTTP_ACCEPT", ""))
        start_response("500 Internal Server Error", headers)
        return [data]

    return broken


def _asgi(body: _Body) -> Callable[..., Awaitable[None]]:
    async def broken(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":  # no lifespan; a WebSocket is refused
            msg = "the code does not load"
            raise RuntimeError(msg)
        accept = b", ".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        headers, data = body.answer(accept)
        fields = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": 500, "headers": fields})
        await send({"type": "http.response.body", "body": data})

    return broken
