"""Makes OpenSSL contexts of certificates and keys, and tries them by a handshake in memory before they are used.

Changes no context that is in use: if `load_cert_chain` failed on it, all later handshakes would fail.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterable

from srvd.errors import ConfigInvalid
from srvd.linux.fds import memfd
from srvd.record import Record
from srvd.tls.material import Identity, Material, chosen

__all__ = ["Examined", "build", "examine"]

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers of TLS 1.2: forward secrecy and authenticated encryption (RFC 9325 section 4.2). All of TLS 1.3 have both."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CLIENTS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

# X509_VERIFY_PARAM_set_flags(3). X509_V_FLAG_PARTIAL_CHAIN: the certificate itself is the authority.
# X509_V_FLAG_NO_CHECK_TIME: a server with an expired certificate is better than none.
_TRIAL_FLAGS = 0x80000 | 0x200000
_MOST_TURNS = 10  # a handshake takes three
_SOON = 14 * 86_400.0


class Examined(Record):
    """The material with the names of its certificates filled in, and warnings about them."""

    material: Material
    warnings: tuple[str, ...]


def build(material: Material) -> ssl.SSLContext:
    """Returns the context for new connections, which selects the certificate by the name that a client asks for.

    Raises `ConfigInvalid` for certificates, keys or ciphers that OpenSSL refuses.
    """
    contexts = [_context(identity, material) for identity in material.identities]
    names: dict[str, ssl.SSLContext] = {}
    for identity, context in zip(material.identities, contexts, strict=True):
        for name in identity.names:
            names.setdefault(name, context)

    def choose(tls: ssl.SSLObject | ssl.SSLSocket, asked: str | None, first: ssl.SSLContext) -> None:
        context: ssl.SSLContext | None = chosen(names, asked)
        if context is not None and context is not first:
            tls.context = context

    if len(contexts) > 1:
        contexts[0].sni_callback = choose
    return contexts[0]


def examine(material: Material) -> Examined:
    """Tries every certificate by a handshake in memory. Raises `ConfigInvalid`.

    Warns of certificates that have expired, or will within two weeks.
    """
    identities, warnings = [], []
    for identity in material.identities:
        context = _context(identity, material)
        context.verify_mode = ssl.CERT_NONE  # the trying client has no certificate
        told = _shake_hands(context, identity)
        names = tuple(str(name).lower() for kind, name in _pairs(told.get("subjectAltName")) if kind == "DNS")
        until = ssl.cert_time_to_seconds(str(told["notAfter"]))
        identities.append(identity._replace(names=names, until=float(until)))
        if until < time.time() + _SOON:
            verb = "has expired" if until < time.time() else "expires soon"
            warnings.append(f"the certificate {identity.path} {verb}: {told['notAfter']}")
    return Examined(material._replace(identities=tuple(identities)), tuple(warnings))


def _context(identity: Identity, material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[material.minimum]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.set_ciphers(material.ciphers or _CIPHERS)
    except ssl.SSLError as exc:
        raise ConfigInvalid(f"use the ciphers {material.ciphers!r}: OpenSSL knows none of them") from exc
    _load(context, identity)
    if material.client_ca:
        try:
            context.load_verify_locations(cadata=material.client_ca.decode("latin-1"))
        except (ssl.SSLError, ValueError) as exc:
            raise ConfigInvalid(f"use the client CA: {_reason(exc)}") from exc
    context.verify_mode = _CLIENTS[material.client_certificates]
    return context


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    # Python's ssl reads keys from files only. A memfd has no name by which other users could open it.
    fd = memfd("srvd-tls", identity.pem)
    try:
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=identity.password or _no_passphrase)
    except _Encrypted as exc:
        hint = "a server cannot be asked for the passphrase: key_password_file has it, or openssl pkey takes it off"
        raise ConfigInvalid(f"use the key {identity.key or identity.path}: it is encrypted; {hint}") from exc
    except (ssl.SSLError, OSError) as exc:
        if identity.password and "PEM" in str(exc):  # OpenSSL says no more
            key = identity.key or identity.path
            raise ConfigInvalid(f"use the key {key}: its passphrase is another one, or it is malformed") from exc
        if "KEY_VALUES_MISMATCH" in str(exc):
            key = f"the key {identity.key}" if identity.key else "the key in the same file"
            raise ConfigInvalid(f"{key} does not belong to the certificate {identity.path}") from exc
        raise ConfigInvalid(f"use the certificate {identity.path}: {_reason(exc)}") from exc
    finally:
        os.close(fd)


class _Encrypted(Exception):
    pass


def _no_passphrase() -> str:
    raise _Encrypted  # by default OpenSSL asks on the terminal, and waits for it


def _shake_hands(context: ssl.SSLContext, identity: Identity) -> dict[str, object]:
    """Returns the certificate, as a client that trusts only this one decodes it."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags = ssl.VerifyFlags(_TRIAL_FLAGS)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        leaf = identity.pem.partition(b"-----END CERTIFICATE-----")
        client_context.load_verify_locations(cadata=(leaf[0] + leaf[1] + b"\n").decode("latin-1"))
        client = client_context.wrap_bio(to_client, to_server)
        server = context.wrap_bio(to_server, to_client, server_side=True)
        for _ in range(_MOST_TURNS):
            if all([_is_done(client), _is_done(server)]):
                break
        return dict(client.getpeercert() or {})
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigInvalid(f"shake hands with the certificate {identity.path}: {_reason(exc)}") from exc


def _is_done(side: ssl.SSLObject) -> bool:
    """Takes one step of a side's handshake. Returns whether that side is done."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _pairs(value: object) -> Iterable[tuple[object, object]]:
    return value if isinstance(value, tuple) else ()


def _reason(exc: Exception) -> str:
    """Returns OpenSSL's reason, without its place in OpenSSL's source."""
    verify = getattr(exc, "verify_message", "")
    reason = getattr(exc, "reason", "") or str(exc)
    return "it is malformed" if "PEM" in reason else str(verify or reason.replace("_", " ").lower())
