"""Applications for the system tests, as source: good ones, and what a bad deploy leaves on disk.

Each of these is deployed as `app.py` in a daemon's folder. The modules beside this one are applications of real
frameworks, imported as they are.
"""

from __future__ import annotations

GOOD = """
import os, time
RELEASE = {release!r}
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/sleep/"):
        time.sleep(float(path[7:]))
    if path.startswith("/until/"):
        while not os.path.exists(path[7:]):
            time.sleep(0.02)
    if path == "/hang":
        hang()
    if path == "/exit":
        os._exit(3)
    if path == "/say":
        os.write(2, b"said on stderr\\n")
    body = (RELEASE + " " + environ["srvd.worker"] + " " + str(os.getpid())).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
def hang():
    time.sleep(3600)
"""
"""Answers with its release, the worker's name and its pid; /until/FILE when there is such a file in its folder."""


def good(release: str = "one", before: str = "") -> str:
    """`before` is executed when the application is imported."""
    return before + GOOD.format(release=release)


BROKEN = {
    "raises at import": "raise RuntimeError('the deploy is broken')\n",
    "is a syntax error": "def app(:\n",
    "hangs at import": "import time\ntime.sleep(3600)\n",
    "calls os._exit": "import os, sys\nsys.stderr.write('last words\\n')\nsys.stderr.flush()\nos._exit(0)\n",
}
"""What the code on disk can be like after a bad deploy."""

REASON = {
    "raises at import": "RuntimeError: the deploy is broken",
    "is a syntax error": "SyntaxError",
    "hangs at import": "boot_timeout",
    "calls os._exit": "the process ended while it was loaded (exit 0)",
}
"""What the one who asked for a reload is told then."""

PROOF = {
    "raises at import": "Traceback (most recent call last)",
    "is a syntax error": "def app(:",
    "hangs at import": 'app.py", line 2 in <module>',
    "calls os._exit": "last words",
}
"""And how it is proved."""

SLOW = "import time\ntime.sleep({seconds})\n"
"""In front of an application: it takes so long to import."""

HELD = "import os, time\nwhile os.path.exists('held'): time.sleep(0.02)\n"
"""In front of an application: it is not imported before the file is gone."""

SLOW_IF_TOLD = "import os, time\nif os.path.exists('slow'): time.sleep({seconds})\n"
"""The same, but only while there is a file `slow`."""

CRASH_IF_TOLD = """
import os
def crash():
    if os.path.exists("crash"):
        os.write(2, b"crashing as told\\n")
        os._exit(9)
os.register_at_fork(after_in_child=crash)
"""
"""In front of an application: while there is a file `crash`, each new worker of it dies before it is ready."""

DIES_SOON = """
import os, threading
def die():
    os.write(2, b"dying soon\\n")
    os._exit(7)
os.register_at_fork(after_in_child=lambda: threading.Timer({seconds}, die).start())
"""
"""In front of an application: each worker of it boots well, and dies after so many seconds."""
