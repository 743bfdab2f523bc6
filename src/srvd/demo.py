"""The application that is served when none is named: a page that names the worker that answered, and paths to try.

Not a framework: it exists so that a first start shows something.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["app"]

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

LONGEST_SLEEP = 600.0

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>srvd</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 38em; margin: 4em auto; padding: 0 1em; color: #222; }}
code {{ background: #f3f3f3; padding: .1em .3em; border-radius: 3px; }} .worker {{ font-size: 1.6em; }}
</style></head><body>
<p>This page was answered by worker</p>
<p class="worker"><code>{worker}</code>, process <code>{pid}</code></p>
<p>Reload it: another worker may answer. Try <code>srvctl scale 4</code>, <code>srvctl reload</code> and
<code>srvctl status</code>, and see what happens here.</p>
<p>Serve your own application with <code>srvd start MODULE:APPLICATION</code>.</p>
<p>Paths to try: <code>/healthz</code>, <code>/sleep/2</code>, <code>/echo</code>.</p>
</body></html>
"""


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI application (PEP 3333): `/`, `/healthz`, `/sleep/SECONDS`, `/echo`."""
    path: str = environ["PATH_INFO"]
    if path == "/":
        page = _PAGE.format(worker=environ.get("srvd.worker", "?"), pid=os.getpid())
        return _answer(start_response, "200 OK", page, "text/html; charset=utf-8")
    if path == "/healthz":
        return _answer(start_response, "200 OK", "ok\n")
    if path.startswith("/sleep/"):
        return _sleep(path.removeprefix("/sleep/"), start_response)
    if path == "/echo":
        return _echo(environ, start_response)
    return _answer(start_response, "404 Not Found", "there is nothing here; try /\n")


def _answer(
    start_response: StartResponse, status: str, text: str, kind: str = "text/plain; charset=utf-8"
) -> list[bytes]:
    body = text.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def _sleep(text: str, start_response: StartResponse) -> list[bytes]:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= LONGEST_SLEEP:  # refuses nan, too
        return _answer(start_response, "400 Bad Request", f"seconds are a number from 0 to {LONGEST_SLEEP:g}\n")
    time.sleep(seconds)
    return _answer(start_response, "200 OK", f"slept {seconds:g} s\n")


def _echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answers with method, target and headers as text, then the request's body in pieces."""
    lines = [f"{environ['REQUEST_METHOD']} {environ.get('RAW_URI') or environ['PATH_INFO']}"]
    for key, value in sorted(environ.items()):
        if key.startswith("HTTP_"):
            lines.append(f"{key.removeprefix('HTTP_').replace('_', '-').title()}: {value}")
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            lines.append(f"{key.replace('_', '-').title()}: {value}")
    start_response("200 OK", [("Content-Type", "text/plain; charset=iso-8859-1")])
    yield ("\n".join(lines) + "\n\n").encode("latin-1", "replace")
    body = environ["wsgi.input"]
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (piece := body.read(min(left, 65536))):
        left -= len(piece)
        yield piece
