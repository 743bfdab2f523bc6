"""Makes the environ of a request (PEP 3333, "environ Variables"): the sink for WSGI, and the environ's keys.

Checks nothing: `http/` has accepted the fields before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from io import BufferedReader
from operator import setitem

from srvd.http.access_line import Names
from srvd.http.h1.guard import Line
from srvd.http.h1.sink import Client, Ends, Fields, Scope, joined
from srvd.worker.net.bodies.spool import BodySpool
from srvd.worker.net.bodies.stream import BodyStream
from srvd.worker.wsgi.files import FileWrapper

__all__ = ["LOG_NAMES", "Environ", "EnvironSink", "environ_key", "put_body"]

Environ = Scope

_MOST_KEYS = 1024
_LONGEST_NAME = 64
_PLAIN = {"CONTENT_TYPE", "CONTENT_LENGTH"}


def environ_key(name: str) -> str:
    """Returns the key for the field `name` (RFC 3875 section 4.1.18); "" for a field hidden from the application.

    Hides "Proxy", because HTTP_PROXY is where libraries look for their outgoing proxy: a known attack.
    """
    key = name.upper().replace("-", "_")
    if key == "PROXY":
        return ""
    return key if key in _PLAIN else f"HTTP_{key}"


class _Keys(dict[bytes, str]):
    """Field names → keys of the environ. Looking up a new name adds it."""

    def __missing__(self, name: bytes) -> str:
        key = environ_key(name.decode("latin-1"))
        if len(self) < _MOST_KEYS and len(name) <= _LONGEST_NAME:
            self[name] = key
        return key


_KEYS = _Keys()

LOG_NAMES = Names(
    address="REMOTE_ADDR",
    method="REQUEST_METHOD",
    target="RAW_URI",
    path="PATH_INFO",
    query="QUERY_STRING",
    protocol="SERVER_PROTOCOL",
    worker="srvd.worker",
    field=environ_key,
)
"""The keys under which the access log finds the facts of a request."""


class EnvironSink:
    """Makes the environs of one worker's requests."""

    def __init__(self, worker: str, multithread: bool) -> None:
        self._base: Environ = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": "srvd",
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": True,  # another worker, or another generation, may always be running
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            "srvd.worker": worker,
        }

    def connection(self, ends: Ends) -> Environ:
        environ = {
            **self._base,
            "SERVER_NAME": ends.server,
            "SERVER_PORT": ends.server_port,
            "REMOTE_ADDR": ends.client,
            "wsgi.url_scheme": ends.scheme,
        }
        if ends.client_port:
            environ["REMOTE_PORT"] = ends.client_port
        certificate = ends.certificate
        if certificate is not None:  # under the names that Apache's mod_ssl gave it
            environ["SSL_CLIENT_VERIFY"] = "SUCCESS" if certificate.pem else "NONE"
            if certificate.pem:
                environ["SSL_CLIENT_S_DN"] = _bytewise(certificate.subject)
                environ["SSL_CLIENT_I_DN"] = _bytewise(certificate.issuer)
                environ["SSL_CLIENT_M_SERIAL"] = certificate.serial
                environ["SSL_CLIENT_CERT"] = certificate.pem
        return environ

    def line(self, line: Line) -> Environ:
        return {
            "REQUEST_METHOD": line.method,
            "PATH_INFO": line.path,
            "QUERY_STRING": line.query,
            "RAW_URI": line.target,
            "SERVER_PROTOCOL": f"HTTP/1.{line.minor}",
        }

    def fields(self, fields: Fields) -> Environ:
        environ: Environ = {_KEYS[name]: value.rstrip().decode("latin-1") for name, value in fields}
        if len(environ) != len(fields):
            environ = {_KEYS[name]: value.decode("latin-1") for name, value in joined(fields).items()}
        environ.pop("", None)
        return environ

    def field(self, name: bytes, value: bytes) -> tuple[str, str]:
        return _KEYS[name], value.decode("latin-1")

    def section(self, parts: list[tuple[str, str]]) -> Environ:
        environ: Environ = dict(parts)
        environ.pop("", None)
        return environ

    def scheme(self, environ: Environ) -> str:
        scheme: str = environ["wsgi.url_scheme"]
        return scheme

    def put_host(self, environ: Environ, host: str) -> None:
        environ["HTTP_HOST"] = host

    def put_client(self, environ: Environ, client: Client) -> None:
        if client.address is not None:
            environ["REMOTE_ADDR"] = client.address
            environ.pop("REMOTE_PORT", None)
            if client.port:
                environ["REMOTE_PORT"] = client.port
        if client.host:
            environ["HTTP_HOST"] = client.host
        if client.scheme:
            environ["wsgi.url_scheme"] = client.scheme
        environ["SCRIPT_NAME"] += client.prefix


def _bytewise(text: str) -> str:
    """Returns the text with one character for each byte, as PEP 3333 demands ("Unicode Issues")."""
    return text.encode("utf-8", "replace").decode("latin-1")


def put_body(environ: Environ, body: BodySpool | BodyStream, proceed: Callable[[], object]) -> None:
    """Puts a body into the environ; `proceed` asks a client that waits for 100 Continue to send the body.

    Removes Transfer-Encoding: the application reads the decoded body, without chunks (RFC 9112 section 7.1.3).
    """
    chunked = environ.pop("HTTP_TRANSFER_ENCODING", None) is not None
    if isinstance(body, BodyStream):
        body.tell_to(proceed, partial(setitem, environ, "srvd.trailers"))
        environ["wsgi.input"] = BufferedReader(body)
        return
    environ["wsgi.input"] = body.open()
    if chunked:
        environ["CONTENT_LENGTH"] = str(body.size)
    if body.trailers:
        environ["srvd.trailers"] = body.trailers
