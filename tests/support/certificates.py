"""Certificates for tests: an authority, what it issues, files of them, clients that trust it."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from srvd.tls import context, material
from srvd.tls.material import Material


class Authority:
    """One authority; it keeps its files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.path = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.path))

    def file(self, *names: str, common_name: str | None = None) -> Path:
        """The path of a new certificate for these names, with its key and its chain."""
        path = self.folder / f"{names[0].replace('*', 'any')}.pem"
        leaf = self.ca.issue_cert(*names, common_name=common_name)
        leaf.private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def material(self, *names: str, clients: str = "none", minimum: str = "1.2", ciphers: str = "") -> Material:
        """For a listener with a certificate for each of the names."""
        paths = [str(self.file(name)) for name in names or ("shop.example",)]
        authority = "" if clients == "none" else str(self.path)
        return context.examine(material.read(paths, [], authority, (clients, ciphers, minimum))).material

    def client(self, certificate: Path | None = None) -> ssl.SSLContext:
        """The context of a client that trusts this authority, perhaps with a certificate of its own."""
        made = ssl.create_default_context(cafile=str(self.path))
        made.set_alpn_protocols(["h2", "http/1.1"])
        if certificate is not None:
            made.load_cert_chain(certificate)
        return made
