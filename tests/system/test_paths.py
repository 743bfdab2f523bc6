"""Paths that are tidied away under a running daemon – its control socket, the files beside it, its Unix listeners – are
made anew when somebody asks for something, and are told until then; so are listeners that a process has shut down.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from srvd.config.settings import DaemonSettings
from srvd.daemon.control.socket_path import SocketPath
from srvd.daemon.recovery import preconditions
from srvd.errors import SystemRefused
from srvd.linux.systemd import Unit
from srvd.wire.paths import family_path
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, ask, free_port, is_alive, toml
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

BOTH = '"127.0.0.1:0", "unix:{path}"'


def _ask(path: Path | str, target: str = "/") -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        while chunk := client.recv(65536):
            answer += chunk
    return answer.decode()


@pytest.fixture
def site(starter: Starter) -> Srvd:
    """A daemon with its control socket in a folder of its own, and a Unix listener."""
    srvd = starter.new(config=toml("workers = 1\nbake = 0\nrollback_window = 0", bind="unix:w.sock"))
    (srvd.folder / "run").mkdir()
    srvd.socket = srvd.folder / "run" / "control.sock"
    srvd.command[srvd.command.index("--socket") + 1] = str(srvd.socket)
    return srvd.start()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("gone", ["the socket", "all files", "the folder"])
def test_a_control_socket_that_is_gone_is_made_anew_by_a_signal(site: Srvd, gone: str, number: int) -> None:
    match gone:
        case "the socket":
            site.socket.unlink()
        case "all files":
            for path in site.socket.parent.iterdir():
                path.unlink()
        case "the folder":
            shutil.rmtree(site.socket.parent)
    refused = site.ctl("status")
    assert refused.returncode != 0
    assert "kill -HUP" in refused.stderr
    site.signal(number)
    wait_for(site.listens)
    site.wait_logged("was made anew")
    wait_for(site.is_ready)
    assert (site.socket.parent / "control.sock.lock").read_text().strip() == str(site.pid)
    second = site.run()
    assert second.returncode == 71
    assert f"pid {site.pid}" in second.stderr
    site.ctl("reload")
    wait_for((site.socket.parent / "control.sock.state").exists)


def test_a_family_that_is_started_after_that_is_adopted(site: Srvd) -> None:
    shutil.rmtree(site.socket.parent)
    site.signal(signal.SIGHUP)
    wait_for(site.listens)
    site.wait_logged("web@2 takes over")
    wait_for(lambda: not site.pool()["draining"])
    names = site.names()
    site.die()
    site.start()
    assert site.names() == names


def test_a_control_path_that_somebody_else_has_now_is_left_alone(site: Srvd) -> None:
    site.socket.unlink()
    site.socket.write_text("not a socket")
    site.signal(signal.SIGHUP)
    site.wait_logged("something that is no socket is there; it is left alone; this daemon goes on without it")
    assert site.socket.read_text() == "not a socket"
    site.socket.unlink()
    site.signal(signal.SIGHUP)
    wait_for(site.is_ready)


@pytest.mark.parametrize("way", ["reload", "upgrade", "HUP"])
def test_a_unix_listener_whose_path_is_gone_is_told_and_made_anew(site: Srvd, way: str) -> None:
    path = site.folder / "w.sock"
    assert "one web/1#1" in _ask(path)
    path.unlink()
    assert [one["problem"] for one in site.status()["listeners"]] == ["its path is gone"]
    assert "its path is gone: `srvctl reload` opens it anew" in site.ctl("status").stdout
    if way == "HUP":
        site.signal(signal.SIGHUP)
    else:
        assert site.ctl(way).returncode == 0
    wait_for(lambda: all("problem" not in one for one in site.status()["listeners"]), 30)
    wait_for(site.is_ready)
    assert "one web/2#" in _ask(path)
    assert site.ctl("reload").returncode == 0
    assert "one web/3#" in _ask(path)


def test_a_reload_that_fails_leaves_no_socket_that_nobody_accepts_from(site: Srvd) -> None:
    path = site.folder / "w.sock"
    path.unlink()
    site.deploy("raise RuntimeError('broken')\n")
    assert site.ctl("reload").returncode == 1
    wait_for(lambda: not path.exists())  # when the zygote that failed has been reaped
    site.good("two")
    assert site.ctl("reload").returncode == 0
    assert "two web/" in _ask(path)


SHUT = apps.good(
    before="""
import socket, os
def shut():
    for fd in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(fd)))
        except OSError:
            continue
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()
"""
).replace('if path == "/hang":', 'if path == "/shut":\n        shut()\n    if path == "/hang":')


def test_a_listener_that_a_worker_has_shut_down_listens_again(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2", bind=f"127.0.0.1:{free_port()}"), code=SHUT)
    srvd.get("/shut")
    srvd.wait_logged("had been shut down by a process that has it; it listens again")

    def serves() -> bool:
        try:
            return srvd.get("/").startswith("one ")
        except ConnectionRefusedError:
            return False

    wait_for(serves)  # it has several descriptors of it, and may do it once more
    assert srvd.names() == {"web/1#1", "web/1#2"}
    assert "problem" not in srvd.status()["listeners"][0]


def test_a_unix_listener_that_a_worker_has_shut_down_is_opened_anew_by_a_reload(site: Srvd) -> None:
    site.deploy(SHUT)
    assert site.ctl("reload").returncode == 0
    path = site.folder / "w.sock"
    _ask(path, "/shut")
    site.wait_logged("a process that has it has shut it down; a reload opens it anew")
    wait_for(lambda: "problem" not in site.status()["listeners"][0])
    wait_for(site.is_ready)
    assert "one web/3#" in _ask(path)
    wait_for(lambda: site.status()["operations"] == [])  # the reload is done when its former worker accepts no more
    assert stays(lambda: site.status()["operations"] == [], 0.5)


def test_an_abstract_listener_that_a_worker_has_shut_down_tells_that_only_a_restart_helps(starter: Starter) -> None:
    name = f"@srvd-test-{os.getpid()}"
    srvd = starter(config=toml("workers = 1", bind=f"unix:{name}"), code=SHUT)
    path = "\0" + name[1:]
    assert "one web/" in _ask(path)
    _ask(path, "/shut")
    told = "a process that has it has shut it down"
    remedy = "its abstract name is taken until all processes that have it are gone: stop srvd and start it again"
    srvd.wait_logged(f"unix:{name}: {told}; {remedy}")
    assert f"{told}: {remedy}" in srvd.ctl("status").stdout
    assert srvd.ctl("reload").returncode == 0
    assert srvd.status()["listeners"][0]["problem"] == told
    assert srvd.stop() == 0
    srvd.start()
    assert "one web/" in _ask(path)


def test_without_a_control_socket_signals_control_it(starter: Starter) -> None:
    """As in a container whose root may not be written to, and that has no other place."""
    port = free_port()
    srvd = starter.new(config=toml("workers = 1", bind=f"127.0.0.1:{port}"))
    srvd.command[srvd.command.index("--socket") + 1] = "off"

    def answer() -> str:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                return ask(connection)
        except OSError:
            return ""

    before = set(srvd.folder.iterdir())
    srvd.start(ready=False)
    wait_for(lambda: answer().startswith("one web/1#1"))
    srvd.wait_logged('no control socket (socket = "off"): srvctl does not reach this daemon; SIGHUP reloads')
    for number, text in ((signal.SIGHUP, "web@2 takes over"), (signal.SIGUSR2, "goes on as the daemon")):
        srvd.signal(number)
        srvd.wait_logged(text)
    srvd.signal(signal.SIGHUP)
    srvd.wait_logged("web@3 takes over")
    wait_for(lambda: answer().startswith("one web/3#"))
    assert {path.name for path in set(srvd.folder.iterdir()) - before} <= {"log", "__pycache__"}
    srvd.signal(signal.SIGTERM)
    assert srvd.wait() == 0


def test_its_workers_finish_and_leave_if_it_dies(starter: Starter) -> None:
    port = free_port()
    srvd = starter.new(config=toml("workers = 1", bind=f"127.0.0.1:{port}"))
    srvd.command[srvd.command.index("--socket") + 1] = "off"
    srvd.start(ready=False)
    srvd.wait_logged("ready: web@1 serves")
    left = srvd.die()
    wait_for(lambda: not any(is_alive(one) for one in left), 30)


def test_a_place_that_may_not_be_written_to_is_refused_with_the_settings_that_help(starter: Starter) -> None:
    srvd = starter.new(config=toml())
    place = srvd.command.index("--socket")
    srvd.command[place + 1] = "/proc/self/nowhere.sock"
    done = srvd.run()
    assert done.returncode == 71
    assert "open the control socket /proc/self/nowhere.sock" in done.stderr
    assert '"off" goes without one' in done.stderr


def test_a_start_names_the_instance_of_its_name_that_runs_in_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started from a login, and now from cron. (As root there is but one place: the rule is asked directly.)"""
    monkeypatch.setattr(preconditions, "own_rundirs", lambda uid, environ: (str(tmp_path / "a"), str(tmp_path / "b")))
    monkeypatch.setattr(preconditions, "rundir", lambda uid, environ: str(tmp_path / "a"))
    path = str(tmp_path / "b" / "shop.sock")
    settings = DaemonSettings(name="shop")
    login = SocketPath.open(path, shared=False)
    try:
        with pytest.raises(SystemRefused, match=f"runs already, with its control socket {path}"):
            preconditions.prepare(settings, Unit())
    finally:
        login.close()
    with open(family_path(path), "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(SystemRefused, match=f"has died and left its workers, by {path}") as refused:
            preconditions.prepare(settings, Unit())
        assert f"--socket {path} adopts them" in refused.value.hint
    made = preconditions.prepare(settings, Unit())
    made.control_socket.close()
    made.family_lock.close(remove=True)
