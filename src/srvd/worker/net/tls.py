"""A socket's face over TLS: OpenSSL works in memory, the bytes of the wire go through here, nothing ever blocks.

Knows no HTTP. Loaded only where a listener speaks TLS.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from threading import Lock
from typing import Any

from srvd.http.h1.sink import Certificate, Ends
from srvd.tls.context import build
from srvd.tls.material import Material
from srvd.worker.net.transport import READ, RESET

__all__ = ["Encrypted", "Secure"]

# So much is encrypted before the socket is asked to take it: four records of TLS.
_BLOCK = 65_536

# RFC 4514 section 3 and what OpenSSL prints: attribute names of a distinguished name.
_SHORT = {
    "commonName": "CN", "countryName": "C", "organizationName": "O", "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST", "localityName": "L", "domainComponent": "DC", "userId": "UID",
    "streetAddress": "STREET",
}  # fmt: skip
_ESCAPED = frozenset('"+,;<>\\')


class Secure:
    """TLS of one listener, made once in the zygote: its workers share the keys of sessions, so that any of them can
    resume one that another has begun.
    """

    def __init__(self, material: Material) -> None:
        """Raises `ConfigInvalid` for what this OpenSSL does not take."""
        self._context = build(material)
        self._asks = material.client_certificates != "none"

    def wrap(self, sock: socket.socket) -> Encrypted:
        return Encrypted(sock, self._context)

    def introduce(self, encrypted: Encrypted, ends: Ends) -> Ends:
        """The ends of the connection over TLS, with the client's certificate if one was asked for."""
        return ends._replace(scheme="https", certificate=encrypted.client() if self._asks else None)


class Encrypted:
    """`handshake` until it is done; from then on a `Transport`. Owns the socket.

    An application that has the stream of its request's body may read in one thread while it answers in another.
    OpenSSL does not allow that, so one of them waits.
    """

    __slots__ = ("_aborted", "_deaf", "_incoming", "_lock", "_outgoing", "_owed", "_pending", "_sock", "_tls", "family")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._pending: bytes | memoryview = b""  # encrypted, and not taken by the socket yet
        self._owed = 0  # so many bytes that `send` was given are in `_pending`, and were not counted as taken
        self._deaf = False  # our end is announced: what still comes is thrown away
        self._aborted = False
        self._lock = Lock()
        self.family = int(sock.family)

    def handshake(self) -> bool:
        """Goes on with it; True: it is done. Raises `ssl.SSLError`, `OSError`, `EOFError`."""
        try:
            data = self._sock.recv(READ)
        except BlockingIOError:
            data = None
        if data == b"":
            raise EOFError
        self._incoming.write(data or b"")
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()  # an alert, too
        return True

    def client(self) -> Certificate:
        """The client's certificate, which is verified: with any other there is no connection."""
        der = self._tls.getpeercert(binary_form=True)
        if der is None:
            return Certificate()
        told: dict[str, Any] = self._tls.getpeercert() or {}
        return Certificate(
            _distinguished(told.get("subject", ())),
            _distinguished(told.get("issuer", ())),
            str(told.get("serialNumber", "")),
            ssl.DER_cert_to_PEM_cert(der),
        )

    @property
    def blocked(self) -> bool:
        """Whether the socket has to take something before anything can go on."""
        return bool(self._pending)

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv(self, bufsize: int) -> bytes:
        with self._lock:
            return self._recv(bufsize)

    def send(self, data: bytes | memoryview) -> int:
        with self._lock:
            return self._send(data)

    def _recv(self, bufsize: int) -> bytes:
        try:
            data = self._sock.recv(bufsize)
        except BlockingIOError:
            if self._deaf or not self._incoming.pending:
                raise
        else:
            if self._deaf:
                return data
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
        pieces = []
        ended = False
        try:
            # All of it: what stayed in OpenSSL would wait there unseen by epoll.
            while piece := self._tls.read(READ):
                pieces.append(piece)
            ended = True
        except ssl.SSLWantReadError:
            ended = False
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):  # with close_notify, or without: HTTP knows if it is whole
            ended = True
        finally:
            self._flush()  # answers of TLS itself
        if ended and pieces:
            with suppress(OSError):  # it is gone already
                self._sock.shutdown(socket.SHUT_RD)  # so that epoll tells of the end once more
        if not pieces and not ended:
            raise BlockingIOError
        return b"".join(pieces)

    def _send(self, data: bytes | memoryview) -> int:
        if not self._flush():
            raise BlockingIOError
        view = memoryview(data)
        taken = min(self._owed, len(view))
        self._owed -= taken
        while taken < len(view):
            count = self._tls.write(view[taken : taken + _BLOCK])
            if not self._flush():
                # It is encrypted and cannot be taken back: it is called taken when the socket has all of it.
                self._owed = count
                if not taken:
                    raise BlockingIOError
                return taken
            taken += count
        return taken

    def shutdown(self, how: int) -> None:
        """Announces the end (close_notify of RFC 8446 section 6.1) before the socket's own."""
        self._announce()
        self._sock.shutdown(how)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        if option == socket.SO_LINGER:
            # If its end is a reset, what was sent must look cut off, so the end is not announced.
            self._aborted = value == RESET
        self._sock.setsockopt(level, option, value)

    def close(self) -> None:
        if not self._deaf and not self._aborted:
            with suppress(OSError):  # it is gone already
                self._announce()
        self._sock.close()

    def _announce(self) -> None:
        with self._lock:
            self._deaf = True
            with suppress(ssl.SSLError):  # that the peer did not answer yet; or there was no handshake
                self._tls.unwrap()
            self._flush()

    def _flush(self) -> bool:
        """True: the socket has taken everything."""
        pending = self._pending or self._outgoing.read()
        while pending:
            try:
                sent = self._sock.send(pending)
            except BlockingIOError:
                self._pending = pending
                return False
            pending = memoryview(pending)[sent:] if sent < len(pending) else self._outgoing.read()
        self._pending = b""
        return True


def _distinguished(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """A distinguished name as RFC 4514 spells it, the most specific part first."""
    parts = ("+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part) for part in reversed(name))
    return ",".join(parts)


def _escaped(value: str) -> str:
    escaped = "".join(f"\\{char}" if char in _ESCAPED else char.replace("\0", "\\00") for char in value)
    if escaped[:1] in ("#", " "):
        escaped = f"\\{escaped}"
    if escaped[-1:] == " " and len(value) > 1:
        escaped = f"{escaped[:-1]}\\ "
    return escaped
