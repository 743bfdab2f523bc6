"""What the environs of one worker's requests have in common (PEP 3333).

Knows no request: `http/h1/head.py` adds what is in its head.
"""

from __future__ import annotations

import sys

from srvd.http.h1.head import Environ
from srvd.worker.wsgi.files import FileWrapper

__all__ = ["base_environ"]


def base_environ(worker: str, multithread: bool) -> Environ:
    """The parts of an environ (PEP 3333, "environ Variables") that no request changes."""
    return {
        "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_SOFTWARE": "srvd",
        "REMOTE_ADDR": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": True,  # another worker, or another generation, may always be there
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "srvd.worker": worker,
    }
