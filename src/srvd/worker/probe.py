"""The health probe: one GET, called on the application in the worker itself, without a socket.

Sets no limit of time: the daemon does, and kills a worker that does not come back.
"""

from __future__ import annotations

import traceback
from io import BytesIO
from typing import Any

from srvd.http.head import Environ
from srvd.http.response import check_fields, check_status
from srvd.wire.family import Probed, clip
from srvd.worker.service import Application

__all__ = ["probe"]


def probe(app: Application, base: Environ, path: str) -> Probed:
    """Whether the application answers GET `path` with 2xx or 3xx; `base` is what every environ has."""
    target, _, query = path.partition("?")
    environ = base | {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": target,
        "QUERY_STRING": query,
        "RAW_URI": path,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "HTTP_USER_AGENT": "srvd-probe",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": BytesIO(),
    }
    given: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
        check_fields(headers)
        given.append(status)
        return lambda data: None

    try:
        result = app(environ, start_response)
        try:
            for _ in result:
                continue
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        status = check_status(given[-1]) if given else None
    except BaseException as exc:  # the application ends here, sys.exit too
        return Probed(False, clip(f"GET {path}: it raised\n{''.join(traceback.format_exception(exc))}"))
    if status is None:
        return Probed(False, f"GET {path}: start_response was not called")
    return Probed(200 <= status.code < 400, f"GET {path}: {given[-1]}")
