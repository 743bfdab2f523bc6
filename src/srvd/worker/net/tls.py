"""A transport over TLS: OpenSSL works on buffers in memory, this module moves their bytes to and from the socket, and
never blocks.

Knows no HTTP. Loaded only for a listener with TLS.
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

__all__ = ["TlsListener", "TlsTransport"]

# Bytes encrypted before each send: four records of TLS.
_BLOCK = 65_536

# RFC 4514 section 3 and what OpenSSL prints: attribute names of a distinguished name.
_SHORT = {
    "commonName": "CN", "countryName": "C", "organizationName": "O", "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST", "localityName": "L", "domainComponent": "DC", "userId": "UID",
    "streetAddress": "STREET",
}  # fmt: skip
_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}  # RFC 8446 section 4.2.1
_ESCAPED = frozenset('"+,;<>\\')


class TlsListener:
    """The TLS context of one listener. Made once, in the zygote: workers share the session keys, so that each can
    resume a session that another has begun.
    """

    def __init__(self, material: Material) -> None:
        """Raises `ConfigInvalid` for material that this OpenSSL does not accept."""
        self._context = build(material)
        self._asks = material.client_certificates != "none"
        self._suites = {one["name"]: int(one["id"]) & 0xFFFF for one in self._context.get_ciphers()}

    def wrap(self, sock: socket.socket) -> TlsTransport:
        return TlsTransport(sock, self._context)

    def introduce(self, encrypted: TlsTransport, ends: Ends) -> Ends:
        """Returns the ends of the connection over TLS, with the client's certificate if the listener asks for one."""
        version, suite = encrypted.agreed()
        tls = (_VERSIONS.get(version, 0), self._suites.get(suite, 0))
        return ends._replace(scheme="https", certificate=encrypted.client() if self._asks else None, tls=tls)


class TlsTransport:
    """A `Transport` over TLS. The owner calls `handshake` until it returns True. Owns the socket.

    An application that streams its request's body may read in one thread and send in another. OpenSSL does not allow
    both at once, so a lock makes one wait.
    """

    __slots__ = ("_aborted", "_deaf", "_incoming", "_lock", "_outgoing", "_owed", "_pending", "_sock", "_tls", "family")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._pending: bytes | memoryview = b""  # encrypted bytes that the socket has not taken yet
        self._owed = 0  # plain bytes that are encrypted in `_pending`, and that `send` did not count as taken
        self._deaf = False  # close_notify is sent: incoming bytes are dropped
        self._aborted = False
        self._lock = Lock()
        self.family = int(sock.family)

    def handshake(self) -> bool:
        """Continues the handshake; True once it is complete. Raises `ssl.SSLError`, `OSError`, `EOFError`."""
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

    def agreed(self) -> tuple[str, str]:
        """Returns the version and the cipher suite of the session, as OpenSSL names them."""
        suite = self._tls.cipher()
        return self._tls.version() or "", suite[0] if suite else ""

    def client(self) -> Certificate:
        """Returns the client's certificate, an empty one without. It is verified: others fail the handshake."""
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
        """Whether the handshake can go on only after the socket has taken bytes."""
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
        pieces: list[bytes] = []
        ended = self._decrypt(pieces)
        if ended and pieces:
            with suppress(OSError):  # it is gone already
                self._sock.shutdown(socket.SHUT_RD)  # so that epoll reports the end once more
        if not pieces and not ended:
            raise BlockingIOError
        return b"".join(pieces)

    def _decrypt(self, pieces: list[bytes]) -> bool:
        """Adds all that is decrypted: epoll would not report bytes that stay within OpenSSL. Returns whether the peer
        has ended its sending, with close_notify or without: HTTP knows if it is whole.
        """
        try:
            while piece := self._tls.read(READ):
                pieces.append(piece)
                if not (self._incoming.pending or self._incoming.eof or self._tls.pending()):
                    return False  # nothing is left; another read would say so by an exception, which takes longer
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return True
        finally:
            self._flush()  # answers of TLS itself
        return True

    def _send(self, data: bytes | memoryview) -> int:
        if not self._flush():
            raise BlockingIOError
        view = memoryview(data)
        taken = min(self._owed, len(view))
        self._owed -= taken
        while taken < len(view):
            count = self._tls.write(view[taken : taken + _BLOCK])
            if not self._flush():
                # The block is encrypted and cannot be taken back. It counts as taken once the socket has all of it.
                self._owed = count
                if not taken:
                    raise BlockingIOError
                return taken
            taken += count
        return taken

    def shutdown(self, how: int) -> None:
        """Sends close_notify (RFC 8446 section 6.1), then shuts the socket down."""
        self._announce()
        self._sock.shutdown(how)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        if option == socket.SO_LINGER:
            # Before a reset no close_notify is sent: the response must look cut off.
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
            with suppress(ssl.SSLError):  # the peer has not answered yet, or there was no handshake
                self._tls.unwrap()
            self._flush()

    def _flush(self) -> bool:
        """Sends encrypted bytes; True once the socket has taken all of them."""
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
    """Returns a distinguished name as RFC 4514 writes it, the most specific part first."""
    parts = ("+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part) for part in reversed(name))
    return ",".join(parts)


def _escaped(value: str) -> str:
    escaped = "".join(f"\\{char}" if char in _ESCAPED else char.replace("\0", "\\00") for char in value)
    if escaped[:1] in ("#", " "):
        escaped = f"\\{escaped}"
    if escaped[-1:] == " " and len(value) > 1:
        escaped = f"{escaped[:-1]}\\ "
    return escaped
