"""Claims about TLS in a whole srvd: certificates that a reload brings, or refuses; keys that only root may read."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from srvd.errors import ConfigInvalid
from tests.conftest import Starter
from tests.support.adoption import die
from tests.support.certificates import Authority
from tests.support.daemon import BOOT, Srvd, ask, toml
from tests.support.load import Load, load_on
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client

pytestmark = pytest.mark.system


def for_all(path: Path) -> bool:
    """Whether everybody may read it."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def speaking_tls(starter: Starter, pool: str = "", listener: str = "") -> tuple[Srvd, Authority]:
    """One that speaks TLS, with tls.pem in its folder, not started yet."""
    srvd = starter.new(config="")
    authority = Authority(starter.folder)
    issue(srvd, authority)
    srvd.configure(toml(pool).replace("[pools.web]", f'certificate = "tls.pem"\n{listener}\n[pools.web]'))
    srvd.command = [*srvd.command[:2], "--socket", str(srvd.socket), "-c", str(srvd.folder / "srvd.toml")]
    return srvd, authority


def issue(srvd: Srvd, authority: Authority, name: str = "shop.example") -> None:
    """A new certificate in the place of the one in use."""
    path = authority.file(name)
    path.chmod(0o600)
    path.replace(srvd.folder / "tls.pem")


def serial(srvd: Srvd, authority: Authority) -> str:
    """Of the certificate that a new connection sees."""
    load = Load(srvd.address(), context=authority.client())
    connection = load.connect()
    try:
        tls = connection.sock
        assert isinstance(tls, ssl.SSLSocket)
        return str((tls.getpeercert() or {})["serialNumber"])
    finally:
        connection.close()


def test_reloads_bring_new_certificates_and_lose_nothing(starter: Starter) -> None:
    srvd, authority = speaking_tls(starter, "workers = 2\nbake = 0\nrollback_window = 0")
    srvd.start()
    seen = [serial(srvd, authority)]
    with load_on(srvd.address(), 6, context=authority.client()) as load:
        for _ in range(3):
            load.more()
            issue(srvd, authority)
            assert serial(srvd, authority) == seen[-1]  # not before the reload
            assert srvd.call("reload")["operation"]["state"] == "done"
            seen.append(serial(srvd, authority))
    assert load.failed == []
    assert len(set(seen)) == 4


def test_keys_go_with_an_upgrade_and_those_on_disk_wait_for_a_reload(starter: Starter) -> None:
    srvd, authority = speaking_tls(starter, "workers = 2")
    srvd.start()
    before = serial(srvd, authority)
    issue(srvd, authority)
    with load_on(srvd.address(), 4, context=authority.client()) as load:
        assert srvd.ctl("upgrade").returncode == 0
        (zygote,) = srvd.zygotes()
        zygote.kill()
        wait_for(lambda: srvd.pool()["generation"] == 2 and len(srvd.serving()) == 2, BOOT)
        load.more()
        assert serial(srvd, authority) == before
        assert srvd.ctl("reload").returncode == 0
    assert serial(srvd, authority) != before
    assert load.failed == []


@pytest.mark.parametrize("bad", ["garbage", "another key", "nothing", "cut"])
def test_a_bad_certificate_refuses_the_reload_and_changes_nothing(starter: Starter, bad: str) -> None:
    srvd, authority = speaking_tls(starter)
    srvd.start()
    before, workers = serial(srvd, authority), srvd.names()
    path = srvd.folder / "tls.pem"
    good = path.read_bytes()
    key, chain = good[: good.index(b"-----BEGIN CERT")], good[good.index(b"-----BEGIN CERT") :]
    with load_on(srvd.address(), 4, context=authority.client()) as load:
        if bad == "nothing":
            path.unlink()
        elif bad == "another key":
            issue(srvd, authority, "other.example")
            path.write_bytes(key + path.read_bytes()[len(key) :])
            assert path.read_bytes() != good
        else:
            path.write_bytes(b"no certificate" if bad == "garbage" else key + chain[:200] + b"\n" + chain[-30:])
        with pytest.raises(ConfigInvalid, match=r"srvd\.toml:4: listeners\.web\.certificate: .*tls\.pem"):
            srvd.call("reload")
        done = srvd.ctl("reload")
        assert done.returncode == 78
        load.more()
    assert load.failed == []
    assert serial(srvd, authority) == before
    assert srvd.names() == workers
    issue(srvd, authority)
    assert srvd.call("reload")["operation"]["state"] == "done"
    assert serial(srvd, authority) != before


def test_status_says_which_listener_speaks_tls_and_for_how_long(starter: Starter) -> None:
    srvd, _ = speaking_tls(starter)
    srvd.start()
    (listener,) = srvd.status()["listeners"]
    assert listener["scheme"] == "https"
    day = time.strftime("%Y-%m-%d", time.gmtime(listener["certificate_expires_at"]))
    assert listener["certificate_expires_at"] > time.time()
    assert f"{listener['address']} (https, the certificate expires on {day})" in srvd.ctl("status").stdout


def test_a_bad_certificate_ends_a_check_and_a_start(starter: Starter) -> None:
    srvd, _ = speaking_tls(starter)
    (srvd.folder / "tls.pem").write_bytes(b"no certificate")
    done = srvd.run()
    assert done.returncode == 78
    assert "the file has no certificate in PEM" in done.stderr
    srvd.command = [srvd.command[0], "check", "-c", str(srvd.folder / "srvd.toml")]
    assert srvd.run().returncode == 78


def test_a_zygote_that_is_loaded_anew_has_the_certificate_of_its_configuration(starter: Starter) -> None:
    srvd, authority = speaking_tls(starter, "workers = 1\nbake = 0")
    srvd.start()
    before = serial(srvd, authority)
    issue(srvd, authority)  # is not for a repair to pick up
    worker = srvd.names().pop()
    (zygote,) = srvd.zygotes()
    zygote.kill()
    srvd.kill_worker(worker)
    srvd.wait_serving(1, without=worker)
    assert serial(srvd, authority) == before


@pytest.mark.parametrize("preload", ["on", "off", "auto"])
def test_an_application_that_cannot_be_forked_speaks_tls_as_well(starter: Starter, preload: str) -> None:
    srvd, authority = speaking_tls(starter, f'preload = "{preload}"')
    if preload == "auto":  # it leaves a thread behind, so each worker loads it
        srvd.good(
            before="import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        )
    srvd.start()
    assert serial(srvd, authority)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a pool as another user")
@pytest.mark.skipif(not for_all(Path(os.__file__)), reason="nobody may not run this interpreter")
def test_a_key_that_only_root_may_read_serves_a_pool_of_another_user(starter: Starter) -> None:
    srvd, authority = speaking_tls(starter, 'workers = 1\nuser = "nobody"\nbake = 0')
    for folder in (srvd.folder, starter.folder, starter.folder.parent):
        folder.chmod(0o755)  # for the application, not for the key
    srvd.start()
    worker = srvd.serving()[0]
    assert os.stat(f"/proc/{worker['pid']}").st_uid == 65534
    first = serial(srvd, authority)
    issue(srvd, authority)
    assert srvd.call("reload")["operation"]["state"] == "done"
    assert serial(srvd, authority) != first


def test_a_key_is_told_to_nobody(starter: Starter) -> None:
    srvd, authority = speaking_tls(starter)
    srvd.command += ["--log-level", "debug"]
    srvd.start()
    (srvd.folder / "other.pem").write_text("x")
    issue(srvd, authority)
    srvd.call("reload")
    secret = re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+(\S{20})", (srvd.folder / "tls.pem").read_text())[0]
    for text in (srvd.logged(), str(srvd.call("config")), str(srvd.status()), srvd.ctl("config").stdout):
        assert "PRIVATE KEY" not in text
        assert secret not in text
    for process in [srvd.pid, *(one.pid for one in srvd.family())]:
        assert b"PRIVATE KEY" not in Path(f"/proc/{process}/environ").read_bytes()
        assert b"PRIVATE KEY" not in Path(f"/proc/{process}/cmdline").read_bytes()
        links = [os.readlink(f"/proc/{process}/fd/{fd}") for fd in os.listdir(f"/proc/{process}/fd") if fd != "255"]
        assert not [link for link in links if "srvd-tls" in link]  # read, and closed


def test_proxy_and_trust_are_settings_of_a_listener(starter: Starter) -> None:
    told = 'proxy_protocol = true\nproxy_from = ["127.0.0.0/8"]\ntrusted_proxies = ["192.0.2.0/24"]\n'
    config = toml("workers = 1").replace("[pools.web]", f"{told}[pools.web]")
    code = (
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [(environ['REMOTE_ADDR'] + ' ' + environ['wsgi.url_scheme']).encode()]\n"
    )
    srvd = starter(config=config, code=code)
    with Client(srvd.address()) as client:
        client.send(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")
        answer = client.get("/", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
        assert answer.body == b"203.0.113.9 https"


def talk(srvd: Srvd, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> http.client.HTTPConnection:
    """A connection by TLS; to go on with a session if there is one."""
    plain = socket.create_connection(srvd.address(), timeout=BOOT)
    connection = http.client.HTTPConnection("shop.example", timeout=BOOT)
    connection.sock = context.wrap_socket(plain, server_hostname="shop.example", session=session)
    return connection


def resumes(srvd: Srvd, context: ssl.SSLContext, session: ssl.SSLSession | None) -> bool:
    connection = talk(srvd, context, session)
    try:
        ask(connection)
        tls = connection.sock
        assert isinstance(tls, ssl.SSLSocket)
        return bool(tls.session_reused)
    finally:
        connection.close()


def test_after_an_adoption_connections_sessions_and_certificates_are_what_they_were(starter: Starter) -> None:
    srvd, authority = speaking_tls(starter, "workers = 2\nbake = 0")
    srvd.start()
    seen, before = serial(srvd, authority), srvd.names()
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # there the session is there right after the handshake
    with load_on(srvd.address(), 4, context=authority.client()) as load:
        first = talk(srvd, context)
        ask(first)
        assert isinstance(first.sock, ssl.SSLSocket)
        session = first.sock.session
        die(srvd)
        ask(first)  # it notices nothing
        srvd.start()
        ask(first)
        first.close()
        assert srvd.names() == before
        assert resumes(srvd, context, session)
        assert srvd.call("recycle")["operation"]["state"] == "done"  # forks of the adopted zygote
        assert not before & srvd.names()
        assert serial(srvd, authority) == seen
        assert resumes(srvd, context, session)
        (zygote,) = srvd.zygotes()
        zygote.kill()  # the next one has its keys from the daemon, which has read them anew
        wait_for(lambda: {name.split("#")[0] for name in srvd.names()} == {"web/2"}, BOOT)
        assert serial(srvd, authority) == seen
        load.more()
    assert load.failed == []


def test_new_certificates_come_into_force_with_the_adoption(starter: Starter) -> None:
    srvd, authority = speaking_tls(starter, "workers = 2\nbake = 0")
    srvd.start()
    seen = serial(srvd, authority)
    with load_on(srvd.address(), 4, context=authority.client()) as load:
        die(srvd)
        issue(srvd, authority)
        srvd.start()
        wait_for(lambda: serial(srvd, authority) != seen, BOOT)
        load.more()
    assert load.failed == []


def test_what_only_a_dead_daemon_had_the_keys_of_serves_on_and_is_not_forked_in_the_clear(starter: Starter) -> None:
    """The file has no TLS any more, and the reload that follows from that fails: the former generation stays."""
    srvd, authority = speaking_tls(starter, "workers = 2\nbake = 0")
    srvd.start()
    seen = serial(srvd, authority)
    die(srvd)
    srvd.configure(toml("workers = 2\nbake = 0"))
    srvd.deploy("raise RuntimeError('not finished')\n")
    srvd.start()
    (reload,) = [op for op in wait_ended(srvd) if op["kind"] == "reload"]
    assert reload["state"] == "failed"
    assert serial(srvd, authority) == seen
    zygote = srvd.only_zygote()
    zygote.kill()
    srvd.wait_logged("the keys of web went with the former daemon; nothing was loaded")
    repair = next(op for op in wait_ended(srvd) if op["kind"] == "repair")
    shown = srvd.ctl("op", "show", str(repair["id"]))
    assert "the keys of web went with the former daemon" in shown.stdout
    assert "`srvctl reload` reads them" in shown.stdout
    assert serial(srvd, authority) == seen  # by those who have them
    srvd.good("two")
    srvd.call("reload")
    assert srvd.get().startswith("two ")


def wait_ended(srvd: Srvd) -> list[dict[str, Any]]:
    """What has ended, when nothing is under way any more."""
    wait_for(lambda: not srvd.call("op.list")["operations"], BOOT)
    ended: list[dict[str, Any]] = srvd.call("history")["operations"]
    return ended
