"""The ways to start: pidfile, addresses, factories, a start that is stopped, one that cannot be; and `srvd check`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BIN, BOOT, Srvd, free_port, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


def test_a_pidfile_is_there_while_the_daemon_is(starter: Starter) -> None:
    pidfile = starter.folder / "srvd.pid"
    srvd = starter("--pidfile", str(pidfile))
    assert pidfile.read_text() == f"{srvd.pid}\n"
    srvd.ctl("reload")
    assert pidfile.read_text() == f"{srvd.pid}\n"
    srvd.stop()
    assert not pidfile.exists()


def test_events_begin_with_the_start(starter: Starter) -> None:
    first = starter("--workers", "1").ctl("events").stdout.splitlines()[0]
    assert "operation 1: start, asked by srvd start" in first


def test_the_pidfile_of_a_daemon_in_the_background_has_its_pid(starter: Starter) -> None:
    pidfile = starter.folder / "srvd.pid"
    srvd = starter.new("--pidfile", str(pidfile))
    assert srvd.daemonize().returncode == 0
    assert pidfile.read_text() == f"{srvd.pid}\n"


def test_a_pidfile_of_somebody_else_is_not_removed(starter: Starter) -> None:
    pidfile = starter.folder / "srvd.pid"
    srvd = starter("--pidfile", str(pidfile))
    pidfile.write_text("1\n")
    srvd.stop()
    assert pidfile.read_text() == "1\n"


# -- addresses ----------------------------------------------------------------------------------------------------


def test_a_unix_socket_serves_and_goes_with_the_daemon(starter: Starter) -> None:
    path = starter.folder / "web.sock"
    srvd = starter(config=toml("workers = 2", bind=f"unix:{path}"))
    assert _get_unix(path).startswith(b"HTTP/1.1 200 OK")
    assert path.stat().st_mode & 0o777 == 0o666
    assert srvd.ctl("reload").returncode == 0
    assert _get_unix(path).startswith(b"HTTP/1.1 200 OK")
    srvd.stop()
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced_and_a_file_is_not(starter: Starter) -> None:
    path = starter.folder / "web.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    srvd = starter(config=toml(bind=f"unix:{path}"))
    assert _get_unix(path).startswith(b"HTTP/1.1 200 OK")
    srvd.stop()
    path.write_text("precious")
    done = starter.new(config=toml(bind=f"unix:{path}")).run()
    assert done.returncode == 71
    assert path.read_text() == "precious"


def _get_unix(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    return answer


def test_an_ipv6_address_serves(starter: Starter) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    srvd = starter(config=toml(bind="[::1]:0"))
    assert srvd.address()[0] == "::1"
    assert srvd.status()["listeners"][0]["address"].startswith("[::1]:")
    assert srvd.get().startswith("one ")


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_an_inherited_socket_serves_and_outlives_the_daemon(starter: Starter) -> None:
    """fd:N, as an init system passes it: requests wait in its backlog while no daemon runs."""
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        number = inherited.fileno()
        first = starter.new(config=toml(bind=f"fd:{number}"), fds=(number,)).start()
        assert first.get().startswith("one ")
        assert first.ctl("reload").returncode == 0
        first.stop()
        with socket.create_connection(inherited.getsockname(), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            second = starter.new(config=toml(bind=f"fd:{number}"), fds=(number,)).start()
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert second.get().startswith("one ")


def test_several_addresses_of_one_listener_all_serve(starter: Starter) -> None:
    ports = [free_port(), free_port()]
    srvd = starter("--bind", f"127.0.0.1:{ports[0]}", "--bind", f"127.0.0.1:{ports[1]}")
    bound = {entry["address"] for entry in srvd.status()["listeners"]}
    assert {f"127.0.0.1:{port}" for port in ports} <= bound
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_two_listeners_with_a_port_of_the_kernels_choice_are_two_sockets(starter: Starter) -> None:
    """127.0.0.1:0 asks for any port, each time for another one."""
    more = '[listeners.other]\nbind = ["127.0.0.1:0"]\n[pools.other]\napp = "other:app"\nlisteners = ["other"]'
    srvd = starter.new(config=toml('listeners = ["web"]', more))
    srvd.deploy(apps.good("other"), "other")
    srvd.start()
    assert srvd.address("web") != srvd.address("other")
    for _ in range(4):
        assert srvd.get().startswith("one ")
        assert srvd.get(listener="other").startswith("other ")
    before = srvd.address("web"), srvd.address("other")
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get().startswith("one web/2#")
    assert srvd.get(listener="other").startswith("other other/2#")
    assert before == (srvd.address("web"), srvd.address("other"))


# -- a start that ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_during_the_start_ends_it_at_once(starter: Starter, number: int) -> None:
    srvd = starter.new(code=apps.BROKEN["hangs at import"]).start(ready=False)
    srvd.wait_logged("control socket")
    wait_for(lambda: srvd.status()["daemon"]["state"] == "starting")
    told = time.monotonic()
    srvd.signal(number)
    assert srvd.wait() == 0
    assert time.monotonic() - told < BOOT / 2  # of boot_timeout, which the load would have


def test_a_signal_right_after_the_start_is_obeyed(starter: Starter) -> None:
    """Before there is a loop, or a handler: an init system may change its mind at any moment."""
    for _ in range(5):
        srvd = starter.new(code=apps.BROKEN["hangs at import"]).start(ready=False)
        srvd.wait_logged("starts, pid")
        srvd.signal(signal.SIGTERM)
        assert srvd.wait(10) in (0, -signal.SIGTERM)
        srvd.socket.unlink(missing_ok=True)


def test_a_start_that_fails_says_why_and_leaves_nothing(starter: Starter) -> None:
    path = starter.folder / "web.sock"
    srvd = starter.new(config=toml(bind=f"unix:{path}"), code=apps.BROKEN["raises at import"])
    done = srvd.run()
    assert done.returncode == 1
    assert "RuntimeError: the deploy is broken" in done.stderr
    assert 'app.py", line 1' in done.stderr
    assert not path.exists()


def test_an_application_that_is_not_there_is_explained(starter: Starter) -> None:
    srvd = starter.new(config=toml())
    srvd.configure(toml().replace("app:app", "app:aplication"))
    done = srvd.run()
    assert done.returncode == 1
    assert "aplication" in done.stderr
    srvd.configure(toml().replace("app:app", "apq:app"))
    done = srvd.run()
    assert done.returncode == 1
    assert "apq" in done.stderr


# -- the application ----------------------------------------------------------------------------------------------


def test_a_factory_is_called(starter: Starter) -> None:
    code = apps.good("made") + "\ndef create_app():\n    return app\n"
    srvd = starter.new(config=toml("workers = 1").replace("app:app", "app:create_app()"), code=code).start()
    assert srvd.get().startswith("made ")


def test_the_demo_is_served_when_no_application_is_named(starter: Starter) -> None:
    srvd = starter.new("--workers", "1")
    srvd.command.remove("app:app")
    srvd.start()
    assert "web/1#1" in srvd.get()
    assert srvd.get("/healthz")


# -- srvd check ---------------------------------------------------------------------------------------------------


def test_check_answers_what_a_start_would(starter: Starter) -> None:
    with _busy_port() as port:  # it opens no port
        srvd = starter.new(config=toml('boot_timeout = "2s"', bind=f"127.0.0.1:{port}"))
        good = _check(srvd)
    assert good.returncode == 0
    assert "app:app was ready" in good.stdout
    for kind, code in apps.BROKEN.items():
        srvd.deploy(code)
        broken = _check(srvd)
        assert broken.returncode == 1
        assert apps.REASON[kind] in broken.stderr
        assert apps.PROOF[kind] in broken.stderr
    srvd.configure(toml("wokers = 2"))
    wrong = _check(srvd)
    assert wrong.returncode == 78
    assert "srvd.toml:6" in wrong.stderr
    assert "workers" in wrong.stderr
    assert not srvd.socket.exists()


def _check(srvd: Srvd) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "srvd"), "check", "-c", "srvd.toml"]
    return subprocess.run(command, cwd=srvd.folder, env=srvd.env, capture_output=True, text=True, timeout=60)


@contextmanager
def _busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


def test_the_log_file_is_written_where_the_configuration_says(starter: Starter) -> None:
    srvd = starter("--log-file", "srvd.log")
    assert "ready: web@1 serves" in (srvd.folder / "srvd.log").read_text()
    assert os.stat(srvd.folder / "srvd.log").st_mode & 0o777 == 0o640


def test_new_log_files_have_the_mode_that_the_configuration_says(starter: Starter) -> None:
    pool = 'workers = 1\naccess_log = "access"\naccess_log_mode = "0644"'
    srvd = starter.new(config=toml(pool, '[daemon]\nlog_file = "d.log"\nlog_mode = "0604"'))
    before = os.umask(0)
    try:
        srvd.start()
    finally:
        os.umask(before)
    modes = {name: os.stat(srvd.folder / name).st_mode & 0o777 for name in ("d.log", "access")}
    assert modes == {"d.log": 0o604, "access": 0o644}
    (srvd.folder / "d.log").rename(srvd.folder / "d.log.1")
    assert srvd.ctl("reopen").returncode == 0
    assert os.stat(srvd.folder / "d.log").st_mode & 0o777 == 0o604


def test_a_log_that_is_a_pipe_nobody_reads_is_refused_and_not_waited_for(starter: Starter) -> None:
    srvd = starter.new("--log-file", "srvd.log")
    os.mkfifo(srvd.folder / "srvd.log")
    done = srvd.run(timeout=20)
    assert done.returncode == 71
    assert "srvd.log: No such device or address" in done.stderr
