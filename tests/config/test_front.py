"""Claims about the settings that stand before HTTP: what a file may say of TLS, PROXY and trusted proxies."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from srvd.config import show, values
from srvd.config.load import load
from srvd.config.packing import pack_front
from srvd.config.settings import Config, ListenerSettings
from srvd.config.values import Unfit, from_text, read
from srvd.errors import BadFrame, ConfigInvalid
from srvd.tls import context, material
from tests.support.certificates import Authority

POOL = '[pools.web]\napp = "shop:app"\n'


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def loaded(folder: Path, lines: str) -> Config:
    path = folder / "srvd.toml"
    path.write_text(f"[listeners.web]\n{lines}\n{POOL}")
    return load(str(path), {}, {})


def problem(folder: Path, lines: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(folder, lines)
    found = caught.value.detail["problems"]
    assert isinstance(found, list)
    assert len(found) == 1, found
    return f"{found[0]['key'].removeprefix('listeners.web.')}: {found[0]['text']}"


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        ("networks", ["10.0.0.0/8", "::1", "unix"], ("10.0.0.0/8", "::1", "unix")),
        ("networks", [], ()),
        ("files", "a.pem", ("a.pem",)),
        ("files", ["a.pem", "b.pem"], ("a.pem", "b.pem")),
        ("yes or no", True, True),
        ("words", "ECDHE+AESGCM", "ECDHE+AESGCM"),
    ],
)
def test_values_are_read(kind: str, value: object, result: object) -> None:
    assert read(kind, value) == result


@pytest.mark.parametrize(
    ("kind", "value", "near"),
    [
        ("networks", ["10.0.0.1/8"], '"10.0.0.0/8"'),
        ("networks", ["everybody"], ""),
        ("networks", ["*"], ""),
        ("networks", "10.0.0.0/8", '["10.0.0.0/8"]'),
        ("files", "", ""),
        ("files", [1], ""),
        ("yes or no", "true", ""),
        ("yes or no", 1, ""),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(kind: str, value: object, near: str) -> None:
    with pytest.raises(Unfit) as caught:
        read(kind, value)
    assert caught.value.nearest == near


@pytest.mark.parametrize(("text", "value"), [("true", True), ("On", True), ("0", False), ("no", False), ("2", "2")])
def test_a_variable_says_yes_or_no(text: str, value: object) -> None:
    assert from_text("yes or no", text) == value
    assert values.show("yes or no", True) == "true"


def test_a_listener_without_any_of_it_tells_its_workers_nothing(tmp_path: Path) -> None:
    config = loaded(tmp_path, "")
    assert pack_front(config.listeners["web"]) == {}
    assert config.tls == {}


def test_certificates_are_read_with_the_configuration(tmp_path: Path, authority: Authority) -> None:
    authority.file("shop.example", "www.shop.example")
    authority.file("*.blog.example")
    config = loaded(tmp_path, 'certificate = ["shop.example.pem", "any.blog.example.pem"]')
    one, two = config.tls["web"].identities
    assert one.names == ("shop.example", "www.shop.example")
    assert two.names == ("*.blog.example",)
    assert one.path == str(tmp_path / "shop.example.pem")
    assert config.warnings == ()


def test_a_key_is_in_no_text_about_the_configuration(tmp_path: Path, authority: Authority) -> None:
    authority.file("shop.example")
    config = loaded(tmp_path, 'certificate = "shop.example.pem"')
    for text in (repr(config), show.as_toml(config), str(show.as_map(config))):
        assert "BEGIN" not in text
    assert b"PRIVATE KEY" in config.tls["web"].identities[0].pem


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            "proxy_protocol = true",
            "proxy_protocol: found true, expected proxy_from with the networks that may write it",
        ),
        ('proxy_from = ["unix"]', "proxy_from: found networks, expected proxy_protocol = true beside them"),
        ('client_certificates = "required"', "client_certificates: found it alone, expected client_ca"),
        ('client_ca = "ca.pem"', "client_ca: found it alone, expected client_certificates"),
        (
            'client_ca = "ca.pem"\nclient_certificates = "optional"',
            "client_certificates: found it without a certificate, expected TLS to be spoken",
        ),
        ('certificate = "a.pem"\nkey = ["a.key", "b.key"]', "key: found 2 keys for 1 certificate, expected"),
        ('key = "a.key"', "key: found 1 key for 0 certificates, expected"),
        ('certificate = "none.pem"', "certificate: read the certificate .*none.pem: No such file or directory"),
        ('certificate = "."', "certificate: read the certificate .*: it is no file"),
        ('certificate = "shop.pem"\nkey = "ca.pem"', "certificate: read the key .*ca.pem: the file has no key in PEM$"),
        (
            'certificate = "ca.pem"',
            "certificate: read the key .*ca.pem: the file has no key in PEM; give its key .*--key",
        ),
        (
            'certificate = "ca.pem"\nkey = "shop.pem"',
            "certificate: the key .*shop.pem does not belong to the certificate .*ca.pem$",
        ),
        (
            'certificate = "mixed.pem"',
            "certificate: the key in the same file does not belong to the certificate .*mixed.pem$",
        ),
        ('certificate = "shop.pem"\nciphers = "none"', "certificate: use the ciphers 'none': OpenSSL knows none"),
        (
            'certificate = "shop.pem"\nclient_ca = "broken.pem"\nclient_certificates = "required"',
            "certificate: use the client CA: ",
        ),
        (
            'certificate = "broken.pem"\nkey = "shop.pem"',
            "certificate: use the certificate .*broken.pem: it is malformed",
        ),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path: Path, authority: Authority, lines: str, told: str) -> None:
    authority.file("shop.example").rename(tmp_path / "shop.pem")
    (tmp_path / "a.pem").write_text("")
    mixed = authority.path.read_text() + (tmp_path / "shop.pem").read_text().partition("-----BEGIN CERT")[0]
    (tmp_path / "mixed.pem").write_text(mixed)
    broken = re.sub(r"\n[^-\n]+(?=\n-----END)", "", authority.path.read_text())
    (tmp_path / "broken.pem").write_text(broken)
    assert re.match(told, problem(tmp_path, lines))


def encrypted(tmp_path: Path, authority: Authority) -> None:
    """Makes shop.example.pem, a certificate, and locked.key, which "secret" unlocks."""
    from cryptography.hazmat.primitives import serialization as how  # what trustme makes its keys with

    path = authority.file("shop.example")
    key = how.load_pem_private_key(path.read_bytes(), None)
    locked = how.BestAvailableEncryption(b"secret")
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(how.Encoding.PEM, how.PrivateFormat.TraditionalOpenSSL, locked)
    )
    path.write_text("-----BEGIN CERT" + path.read_text().partition("-----BEGIN CERT")[2])


LOCKED = 'certificate = "shop.example.pem"\nkey = "locked.key"\n'


def test_an_encrypted_key_is_refused_and_not_asked_for(tmp_path: Path, authority: Authority) -> None:
    encrypted(tmp_path, authority)
    told = problem(tmp_path, LOCKED)
    assert re.search(r"use the key \S*locked.key: it is encrypted; .* openssl pkey takes it off$", told)


def test_an_encrypted_key_is_used_with_the_passphrase_of_a_file(tmp_path: Path, authority: Authority) -> None:
    encrypted(tmp_path, authority)
    (tmp_path / "pass").write_text("secret\n")
    config = loaded(tmp_path, f'{LOCKED}key_password_file = "pass"')
    packed = material.pack(config.tls["web"])
    assert material.unpack(packed).identities[0].password == b"secret"
    context.examine(material.unpack(packed))
    (tmp_path / "pass").write_text("wrong\n")
    told = problem(tmp_path, f'{LOCKED}key_password_file = "pass"')
    assert re.search(r"use the key \S*locked.key: its passphrase is another one, or it is malformed$", told)
    (tmp_path / "pass").unlink()
    told = problem(tmp_path, f'{LOCKED}key_password_file = "pass"')
    assert re.search(r"read the passphrase \S*/pass: No such file or directory$", told)


@pytest.mark.parametrize(("days", "told"), [(-1, "has expired"), (3, "expires soon"), (60, "")])
def test_a_certificate_that_expires_is_a_warning(tmp_path: Path, authority: Authority, days: int, told: str) -> None:
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    leaf = authority.ca.issue_cert("shop.example", not_before=until - datetime.timedelta(days=90), not_after=until)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "shop.pem"))
    config = loaded(tmp_path, 'certificate = "shop.pem"')
    assert [told in warning for warning in config.warnings] == ([True] if told else [])


def test_material_survives_its_way_to_the_zygote(tmp_path: Path, authority: Authority) -> None:
    whole = authority.material("shop.example", "blog.example", clients="required")
    bare = [one._replace(key="", until=0.0) for one in whole.identities]  # the daemon's own messages have these
    assert material.unpack(material.pack(whole)) == whole._replace(identities=tuple(bare))
    broken: list[object] = [None, [], {}, [[["a", "no bytes", []]], b"", "none", "", "1.2"], [[], b"", "none", "", 1]]
    for packed in broken:
        with pytest.raises(BadFrame):
            material.unpack(packed)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("shop.example", 1), ("SHOP.example.", 1), ("a.blog.example", 2), ("blog.example", None),
        ("a.b.blog.example", None), ("", None), (None, None), ("*.blog.example", 2),
    ],
)  # fmt: skip
def test_a_name_is_looked_up_as_it_is_or_by_a_wildcard(asked: str | None, found: int | None) -> None:
    assert material.chosen({"shop.example": 1, "*.blog.example": 2}, asked) == found


def test_by_default_nobody_is_believed() -> None:
    listener = ListenerSettings("web")
    assert (listener.trusted_proxies, listener.proxy_protocol, listener.proxy_from) == ((), False, ())
