"""What a listener needs to speak TLS, as bytes: certificates, keys, the authorities of clients, allowed ciphers.

The daemon, which may read the keys, reads the files and hands the bytes to the zygote in memory. `context.py` gives
them to OpenSSL. Does not import `ssl`, which costs 11 ms: most listeners speak plain HTTP.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from srvd.errors import BadFrame, ConfigInvalid
from srvd.record import Record

__all__ = ["Identity", "Material", "chosen", "pack", "read", "unpack"]

_LARGEST = 1 << 20
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_KEY = b"PRIVATE KEY-----"


class Identity(Record):
    """One certificate with its key, for clients that ask for one of `names`."""

    path: str  # of the certificate, for messages
    pem: bytes  # the chain, then the key
    names: tuple[str, ...] = ()  # DNS names of the certificate, in lower case; filled in by `context.examine`
    key: str = ""  # path of the key's file, for messages; "": the certificate's
    password: bytes = b""  # of the key; b"": it is not encrypted
    until: float = 0.0  # when the certificate expires (Unix seconds); filled in by `context.examine`

    def __repr__(self) -> str:
        return f"<Identity {self.path}>"  # not the key


class Material(Record):
    """The material of one listener. Clients that name no server, or an unknown one, get the first identity."""

    identities: tuple[Identity, ...]
    client_ca: bytes  # PEM
    client_certificates: str  # "none", "optional", "required"
    ciphers: str  # of TLS 1.2, as OpenSSL spells them; "": ours
    minimum: str  # "1.2", "1.3"


def read(
    certificates: Sequence[str],
    keys: Sequence[str],
    client_ca: str,
    demands: tuple[str, str, str],
    password_file: str = "",
) -> Material:
    """Reads the files. Raises `ConfigInvalid`.

    keys: in the order of `certificates`; none: the keys are in the certificates' files.
    demands: client_certificates, ciphers and minimum of `Material`.
    password_file: has the passphrase of the keys in its first line; "": the keys are not encrypted.
    """
    password = _content(password_file, "passphrase").partition(b"\n")[0].rstrip(b"\r") if password_file else b""
    identities = []
    for at, path in enumerate(certificates):
        chain = _content(path, "certificate")
        if _CERTIFICATE not in chain:
            raise ConfigInvalid(f"read the certificate {path}: the file has no certificate in PEM")
        key_path = keys[at] if keys else path
        key = _content(key_path, "key") if keys else chain
        if _KEY not in key:
            hint = "" if keys else "; give its key (`key` of the listener, --key)"
            raise ConfigInvalid(f"read the key {key_path}: the file has no key in PEM{hint}")
        pem = chain + b"\n" + key if keys else chain
        identities.append(Identity(path, pem, key=key_path if keys else "", password=password))
    authorities = _content(client_ca, "client CA") if client_ca else b""
    if client_ca and _CERTIFICATE not in authorities:
        raise ConfigInvalid(f"read the client CA {client_ca}: the file has no certificate in PEM")
    return Material(tuple(identities), authorities, *demands)


def _content(path: str, what: str) -> bytes:
    try:
        # O_NONBLOCK: opening a pipe would wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigInvalid(f"read the {what} {path}: it is no file")
            content = os.read(fd, _LARGEST)
        finally:
            os.close(fd)
    except OSError as exc:
        raise ConfigInvalid(f"read the {what} {path}: {exc.strerror}") from exc
    if len(content) == _LARGEST:
        raise ConfigInvalid(f"read the {what} {path}: it is too large")
    return content


def pack(material: Material) -> list[Any]:
    """Returns the material as plain lists for msgpack, without the paths and dates that only the daemon needs.

    Holds the keys: write it to a memfd only.
    """
    return [[[one.path, one.pem, list(one.names), one.password] for one in material.identities], *material[1:]]


def unpack(packed: object) -> Material:
    """Reads what `pack` returned. Raises `BadFrame` for anything else."""
    match packed:
        case [list(identities), bytes(authorities), str(clients), str(ciphers), str(minimum)]:
            return Material(tuple(_identity(one) for one in identities), authorities, clients, ciphers, minimum)
    raise BadFrame("read the certificates: they do not fit; the link is closed")


def _identity(packed: object) -> Identity:
    match packed:
        case [str(path), bytes(pem), list(names), bytes(password)] if all(isinstance(name, str) for name in names):
            return Identity(path, pem, tuple(names), password=password)
    raise BadFrame("read a certificate: it does not fit; the link is closed")


def chosen(names: Mapping[str, Any], asked: str | None) -> Any:
    """Looks up the server name that a client asked for (RFC 6066 section 3) in `names`; None: not found.

    Finds the exact name, or a wildcard for its first label (RFC 6125 section 6.4.3).
    """
    if not asked:
        return None
    name = asked.lower().rstrip(".")
    found = names.get(name)
    return names.get("*." + name.partition(".")[2]) if found is None else found
