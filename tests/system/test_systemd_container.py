"""Claims about the shipped units inside of a real systemd: what `systemctl` says is true, and no request is lost.

The container is tests/support/systemd_container.py's. Without root, debootstrap, systemd-nspawn or a mirror of Debian:
skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from tests.support import apps
from tests.support.daemon import ask, free_port, toml
from tests.support.load import Load, load_on
from tests.support.systemd_container import UNITS, Box, CannotRun, Service, booted, run_for
from tests.support.waiting import stays, wait_for

pytestmark = [pytest.mark.system, pytest.mark.long]

WAITS = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
BROKEN = "raise RuntimeError('the deploy is broken')\n"

KEEPS_THINGS = (
    apps.good()
    + """
import tempfile
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir())
KEPT = [tempfile.NamedTemporaryFile(dir=folder) for folder in FOLDERS]
plain = app
def app(environ, start_response):
    if environ["REQUEST_METHOD"] == "GET":
        return plain(environ, start_response)
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    there = [os.path.exists(file.name) for file in KEPT]
    for folder in FOLDERS:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            there.append(os.path.exists(file.name))
    return [repr((len(body), there)).encode()]
"""
)
"""An application with files in all folders that systemd may clean, which tells whether they are there."""

KEPT = repr((2 << 20, [True] * 8))

TWO_USERS = """
[listeners.web]
bind = ["127.0.0.1:{port}"]
[listeners.other]
bind = ["127.0.0.1:{other}"]
[pools.web]
app = "app:app"
listeners = ["web"]
user = "shop"
[pools.other]
app = "app:app"
listeners = ["other"]
user = "srvd"
"""

SCORES = {"srvd.service": 1.7, "change-user.conf": 2.7}
"""What `systemd-analyze security` may say at most; docs/howto/systemd.md explains what is left."""

STORED = "3"
"""Descriptors in the store of a service with one listener: that, the family's lock and its state."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    try:
        with booted(tmp_path_factory.mktemp("systemd")) as box:
            box.run("systemd-sysusers")
            box.run("systemd-tmpfiles", "--create")
            yield box
    except CannotRun as exc:
        pytest.skip(f"no systemd in a container here: {exc}")


@pytest.fixture
def service(box: Box) -> Iterator[Service]:
    service = Service(box)
    yield service
    service.remove()
    assert wait_for(lambda: service.processes() == [], within=60)


@pytest.fixture
def port() -> int:
    return free_port()


def _config(port: int, pool: str = "workers = 2") -> str:
    return toml(pool, bind=f"127.0.0.1:{port}")


def _load(port: int, clients: int = 4, path: str = "/") -> AbstractContextManager[Load]:
    return load_on(("127.0.0.1", port), clients, path)


def _get(port: int) -> str:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(client):
        return ask(client)


def _post(port: int) -> str:
    """A body that is too long to be kept in memory; the answer."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("POST", "/", body=b"x" * (2 << 20))
    with contextlib.closing(client):
        return client.getresponse().read().decode()


def _let_change_users(service: Service) -> None:
    shutil.copy(UNITS / "change-user.conf", service.box.path("/etc/systemd/system/srvd.service.d"))
    service.box.run("systemctl", "daemon-reload")


HANG = "RTMIN+5"
HANGS = """import signal, time
def hang(*_):
    time.sleep(3600)
signal.signal(signal.SIGRTMIN + 5, hang)
"""
"""Run by each interpreter when it starts: the signal keeps it in Python for ever."""


def _install_that_hangs(service: Service, port: int, *lines: str) -> None:
    service.install(_config(port), "Environment=PYTHONPATH=/opt/hangs", *lines)
    folder = service.box.path("/opt/hangs")
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HANGS)


def test_an_installation_that_takes_too_long_says_how_far_it_came_and_leaves_nothing(tmp_path: Path) -> None:
    build = ["sh", "-c", "echo Unpacking passwd; sleep 600 & echo $! >pid; wait"]
    with pytest.raises(CannotRun, match=r"did not end within 3 s; its last line: Unpacking passwd"):
        run_for(3, [*build[:2], f"cd {tmp_path}; {build[2]}"], tmp_path / "log")
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, within=20)


# -- start ----------------------------------------------------------------------------------------------------------


def test_a_slow_start_is_active_only_when_the_workers_serve(service: Service, port: int) -> None:
    """Also when it is slower than TimeoutStartSec: the daemon asks for more time."""
    service.install(_config(port), "TimeoutStartSec=1s", code=apps.good(before=WAITS))
    service.systemctl("start", "--no-block")
    wait_for(lambda: service.show("StatusText") == "starting: web: 0 of 2 workers serve", within=20)
    assert stays(lambda: service.state == "activating", 3.0)
    (service.box.path(service.folder) / "go").touch()
    try:
        wait_for(lambda: service.state == "active", within=20)
    finally:
        (service.box.path(service.folder) / "go").unlink()
    assert len(service.workers()) == 2
    assert service.show("StatusText") == "web: 2 workers serve"
    assert service.pid == service.status()["daemon"]["pid"]


def test_a_failed_start_fails_the_command_and_says_why(service: Service, port: int) -> None:
    service.install(_config(port), "Restart=no", code=BROKEN)
    assert service.systemctl("start", check=False).returncode != 0
    assert service.state == "failed"
    assert service.show("ExecMainStatus") == "1"
    assert "could not start" in service.show("StatusText")
    assert "RuntimeError: the deploy is broken" in service.journal()


@pytest.mark.parametrize("unit", ["srvd.service", "srvd@shop.service"])
def test_a_wrong_configuration_is_not_tried_again_at_a_start_or_a_restart(box: Box, unit: str, port: int) -> None:
    service = Service(box, unit)
    try:
        service.install(_config(port, "workers = -1"))
        _fails_for_good(service, "start", "78")
        assert "pools.web.workers: found -1" in service.journal()
        service.configure(_config(port))
        service.start()
        service.configure(_config(port, "workers = -1"))
        assert service.systemctl("reload", check=False).returncode != 0
        assert _get(port).startswith("one ")
        _fails_for_good(service, "restart", "78")
        assert service.processes() == []
    finally:
        service.remove()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("WorkingDirectory=/opt/none", "200"),
        ("ExecStart=\nExecStart=/opt/none/srvd start", "203"),
        ("User=none", "217"),
    ],
)
def test_a_folder_a_program_or_a_user_that_is_not_there_is_not_tried_again(
    service: Service, port: int, line: str, status: str
) -> None:
    service.install(_config(port), line)
    _fails_for_good(service, "start", status)


def _fails_for_good(service: Service, verb: str, status: str) -> None:
    """The command fails, and the unit stays down with this exit status: longer than RestartSec=, which is 1 s."""
    assert service.systemctl(verb, check=False).returncode != 0
    wait_for(lambda: service.state == "failed", within=20)
    assert stays(lambda: service.state == "failed", 2.0, every=0.2)
    assert (service.show("ExecMainStatus"), service.show("NRestarts")) == (status, "0")


def test_an_instance_is_found_by_its_name(box: Box, port: int) -> None:
    service = Service(box, "srvd@shop.service")
    try:
        service.install(_config(port))
        service.start()
        done = box.run("/opt/shop/venv/bin/srvctl", "-n", "shop", "status")
        assert "web" in done.stdout
    finally:
        service.remove()


def test_an_instance_may_have_a_user_of_its_own(box: Box, port: int) -> None:
    service = Service(box, "srvd@shop.service")
    box.run("useradd", "--system", "shop")
    try:
        service.install(_config(port), "User=%i", "Group=%i", "SupplementaryGroups=srvd", code=KEEPS_THINGS)
        service.start()
        assert box.run("stat", "--format=%U", "/run/srvd/shop.sock").stdout.strip() == "shop"
        assert _post(port) == KEPT
        service.systemctl("reload")
        before, workers = service.pid, set(service.workers())
        service.box.signal(before, "KILL")
        service.wait_restarted(before)
        assert set(service.workers()) == workers
    finally:
        service.remove()
        box.run("userdel", "shop")


# -- reload ---------------------------------------------------------------------------------------------------------


def test_a_reload_succeeds_when_the_new_code_serves(service: Service, port: int) -> None:
    service.install(_config(port))
    service.start()
    with _load(port) as load:
        service.deploy(apps.good("two"))
        service.systemctl("reload")
        assert {_get(port).split()[0] for _ in range(10)} == {"two"}  # and not some time later
        load.more()
    assert load.failed == []
    assert load.releases == {"one", "two"}
    assert service.state == "active"


def test_a_bad_reload_fails_with_its_reason_in_the_journal_and_the_old_code_serves_on(
    service: Service, port: int
) -> None:
    service.install(_config(port))
    service.start()
    with _load(port) as load:
        service.deploy(BROKEN)
        assert service.systemctl("reload", check=False).returncode != 0
        assert _get(port).startswith("one ")
        load.more()
    assert load.failed == []
    assert load.releases == {"one"}
    assert service.state == "active"
    assert "RuntimeError: the deploy is broken" in service.journal()
    assert "reload 2 failed" in service.show("StatusText")
    wait_for(lambda: "reload: failed" in service.journal("--priority=warning"), within=20)
    assert " INFO " not in service.journal("--priority=warning")


@pytest.mark.parametrize("preload", ["on", "off"])
def test_a_release_behind_a_link_is_served_after_a_reload_and_a_rollback_has_the_former_one(
    service: Service, port: int, preload: str
) -> None:
    service.install(_config(port, f'workers = 2\nchdir = "/opt/shop/current"\npreload = "{preload}"'))
    _release(service, "one")
    _switch(service, "one")
    service.start()
    with _load(port) as load:
        _release(service, "two")
        load.more()
        assert load.releases == {"one"}
        _switch(service, "two")
        service.systemctl("reload")
        assert {_get(port).split()[0] for _ in range(10)} == {"two"}
        service.ctl("rollback", "web")
        assert {_get(port).split()[0] for _ in range(10)} == {"one"}
        load.more()
    assert load.failed == []
    assert "loaded from /opt/shop/releases/two" in service.journal()


def test_a_link_that_systemd_has_resolved_is_not_followed_and_the_start_says_so(service: Service, port: int) -> None:
    service.install(_config(port), "WorkingDirectory=/opt/shop/current")
    _release(service, "one")
    _switch(service, "one")
    service.start()
    assert "/opt/shop/releases/one is held by its real path" in service.journal()
    _release(service, "two")
    _switch(service, "two")
    service.systemctl("reload")
    assert _get(port).startswith("one ")


def _release(service: Service, name: str) -> None:
    folder = service.box.path(f"/opt/shop/releases/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(apps.good(name))


def _switch(service: Service, name: str) -> None:
    service.box.run("ln", "-sfn", f"releases/{name}", "/opt/shop/current")


def test_a_reload_may_be_slower_than_the_unit_says(service: Service, port: int) -> None:
    service.install(_config(port), "TimeoutStartSec=1s")
    service.start()
    service.deploy(apps.good("two", before=apps.SLOW.format(seconds=3)))
    service.systemctl("reload")
    assert service.status()["pools"][0]["generation"] == 2
    assert "timed out" not in service.journal()


def test_a_reload_that_systemd_did_not_order_is_shown_as_one(service: Service, port: int) -> None:
    service.install(_config(port))
    service.start()
    service.deploy(apps.good("two", before=WAITS))
    order = service.ctl("reload", "--no-wait")
    assert order.returncode == 0
    wait_for(lambda: service.state == "reloading", within=20)
    (service.box.path(service.folder) / "go").touch()
    try:
        wait_for(lambda: service.state == "active", within=20)
    finally:
        (service.box.path(service.folder) / "go").unlink()


# -- upgrade -------------------------------------------------------------------------------------------------------


def test_an_upgrade_keeps_the_main_process_the_watchdog_and_the_store(service: Service, port: int) -> None:
    service.install(_config(port), "WatchdogSec=1s")
    service.start()
    before = service.pid
    with _load(port) as load:
        service.ctl("upgrade")
        assert stays(lambda: (service.pid, service.state) == (before, "active"), 3.0, every=0.2)
        assert service.show("NFileDescriptorStore") == STORED
        service.deploy(apps.good("two"))
        service.systemctl("restart")
        load.more()
    assert load.failed == []
    assert load.releases == {"one", "two"}
    assert service.show("NRestarts") == "0"


# -- restart --------------------------------------------------------------------------------------------------------


def test_a_restart_hands_the_listeners_over_and_loses_nobody(service: Service, port: int) -> None:
    service.install(_config(port))
    service.start()
    before = service.pid
    assert service.show("NFileDescriptorStore") == STORED
    with _load(port, clients=8) as load:
        service.deploy(apps.good("two"))
        service.systemctl("restart")
        assert _get(port).startswith("two ")
        load.more()
    assert load.failed == []
    assert load.releases == {"one", "two"}
    assert service.pid != before


def test_a_stop_closes_the_port_and_waits_for_requests_longer_than_the_unit_says(service: Service, port: int) -> None:
    service.install(_config(port), "TimeoutStopSec=1s")
    service.start()
    with load_on(("127.0.0.1", port), 2, "/sleep/3") as load:
        load.over.set()  # each client has asked at least once more, and ends with this answer
        service.systemctl("stop")
    assert load.failed == []
    assert service.show("Result") == "success"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


@pytest.mark.parametrize("path", ["/", "/sleep/0.3"])
@pytest.mark.parametrize("user", ["srvd", "root"])
def test_a_stop_lets_nobody_in_whom_it_does_not_answer(service: Service, port: int, user: str, path: str) -> None:
    """The unit's daemon is not root, and cannot attach a filter to its listeners; with the drop-in it is."""
    service.install(_config(port, 'workers = 2\nuser = "srvd"' if user == "root" else "workers = 2"))
    if user == "root":
        _let_change_users(service)
    service.start()
    with _load(port, 8, path) as load:
        service.systemctl("stop")
        load.over.set()
    assert load.answered >= 8
    assert {failure.what for failure in load.failed} <= {repr(ConnectionRefusedError(111, "Connection refused"))}
    assert service.show("Result") == "success"


def test_a_socket_unit_starts_the_service_and_no_connection_is_lost_over_a_restart(service: Service, port: int) -> None:
    service.install(toml("workers = 2"), socket=f"ListenStream=\nListenStream=127.0.0.1:{port}")
    service.box.run("systemctl", "start", "srvd.socket")
    assert service.state == "inactive"
    with _load(port, clients=8) as load:
        wait_for(lambda: service.state == "active", within=20)  # the first worker answers before the last one is ready
        service.deploy(apps.good("two"))
        service.systemctl("restart")
        load.more()
    assert load.failed == []
    assert load.releases == {"one", "two"}
    (listener,) = service.status()["listeners"]
    assert (listener["name"], listener["address"]) == ("web", f"127.0.0.1:{port}")


# -- a daemon that dies ---------------------------------------------------------------------------------------------


def test_a_frozen_daemon_is_bitten_by_the_watchdog_and_no_request_is_lost(service: Service, port: int) -> None:
    service.install(_config(port), "WatchdogSec=1s")
    service.start()
    before = service.pid
    with _load(port) as load:
        service.box.signal(before, "STOP")
        service.wait_restarted(before)
        load.more()
    assert load.failed == []
    assert "Watchdog timeout" in service.journal()
    wait_for(lambda: len(service.processes()) == 4, within=60)  # of the former daemon nobody is left


def test_a_daemon_that_hangs_is_bitten_and_its_stack_is_in_the_journal(service: Service, port: int) -> None:
    _install_that_hangs(service, port, "WatchdogSec=1s")
    service.start()
    before, workers = service.pid, service.workers()
    with _load(port) as load:
        service.box.signal(before, HANG)
        service.wait_restarted(before)
        load.more()
    assert load.failed == []
    assert service.workers() == workers
    assert service.show("NRestarts") == "1"
    assert "Watchdog timeout" in service.journal()
    assert 'sitecustomize.py", line 3 in hang' in service.journal()
    assert 'srvd/daemon/loop.py", line' in service.journal()


def test_a_daemon_that_hangs_at_a_stop_leaves_its_stack_and_workers_that_can_be_told_to_leave(
    service: Service, port: int
) -> None:
    _install_that_hangs(service, port, "WatchdogSec=0", "TimeoutStopSec=1s")
    service.start()
    with _load(port, 2) as load:
        service.box.signal(service.pid, HANG)
        service.systemctl("stop")
        assert service.show("Result") == "timeout"
        assert 'sitecustomize.py", line 3 in hang' in service.journal()
        load.more()  # nobody has told the workers that it was a stop
        assert load.failed == []
        service.systemctl("kill")
        load.over.set()
    # Who waits in the backlog when the last one leaves is refused or reset; whoever was let in is answered.
    assert [failure for failure in load.failed if failure.holder] == []
    wait_for(lambda: service.processes() == [], within=20)  # long before orphan_timeout


def test_a_killed_daemon_comes_back_and_no_request_is_lost(service: Service, port: int) -> None:
    service.install(_config(port))
    service.start()
    before = service.pid
    with _load(port) as load, _load(port, 2, "/sleep/0.3") as slow:
        service.box.signal(before, "KILL")
        service.wait_restarted(before)
        load.more()
    assert load.failed + slow.failed == []
    assert service.show("NRestarts") == "1"
    wait_for(lambda: len(service.processes()) == 4, within=60)


def test_a_killed_daemon_is_succeeded_by_what_systemd_kept_alone(service: Service, port: int) -> None:
    """Its folder was cleaned between the death and the restart, twice; the second time it had been adopted itself, and
    systemd had been replaced, as when its package is upgraded.
    """
    service.install(_config(port), "RestartSec=2s")
    service.start()
    with _load(port) as load:
        for restarts in ("1", "2"):
            before, workers = service.pid, service.workers()
            wait_for(service.is_state_written, within=20)
            service.box.signal(before, "KILL")
            service.box.run("sh", "-c", "rm /run/srvd/srvd.sock*")
            service.wait_restarted(before)
            load.more()
            assert service.workers() == workers
            assert service.show("NRestarts") == restarts
            assert service.pid == service.status()["daemon"]["pid"]
            assert service.show("NFileDescriptorStore") == STORED
            service.box.run("systemctl", "daemon-reexec")
            wait_for(service.box.is_running, within=20)
        service.systemctl("reload")
        load.more()
    assert load.failed == []
    assert "are adopted" in service.journal()
    assert "sent away" not in service.journal()
    service.systemctl("stop")
    assert service.show("NFileDescriptorStore") == "0"
    service.start()
    assert service.workers().keys() == workers.keys()  # numbered anew: nobody was looked for
    assert service.workers() != workers


def test_a_killed_daemon_that_was_given_its_socket_comes_back_to_it(service: Service, port: int) -> None:
    service.install(toml("workers = 2"), socket=f"ListenStream=\nListenStream=127.0.0.1:{port}")
    service.box.run("systemctl", "start", "srvd.socket")
    with _load(port) as load:
        before, workers = service.pid, service.workers()
        wait_for(service.is_state_written, within=20)
        service.box.signal(before, "KILL")
        service.wait_restarted(before)
        load.more()
        assert service.workers() == workers
        service.systemctl("reload")
        load.more()
        service.systemctl("restart")
        load.more()
    assert load.failed == []
    assert service.status()["listeners"] == [
        {"name": "web", "address": f"127.0.0.1:{port}", "scheme": "http", "certificate_expires_at": None}
    ]


def test_a_unit_with_a_runtime_directory_of_its_own_is_succeeded_too(service: Service, port: int) -> None:
    """systemd removes it when the daemon dies, with everything in it."""
    service.install(_config(port), "RuntimeDirectory=srvd")
    try:
        service.start()
        with _load(port) as load:
            before, workers = service.pid, service.workers()
            wait_for(service.is_state_written, within=20)
            service.box.signal(before, "KILL")
            service.wait_restarted(before)
            load.more()
            assert service.workers() == workers
        assert load.failed == []
        service.systemctl("stop")
    finally:
        service.box.run("systemd-tmpfiles", "--create")


def test_a_full_run_keeps_nobody_from_being_adopted(service: Service, port: int) -> None:
    service.install(_config(port), "RestartSec=2s")
    service.box.run("mount", "-t", "tmpfs", "-o", "size=64k,mode=1775,gid=srvd", "tmpfs", "/run/srvd")
    try:
        service.box.run("sh", "-c", "cat /dev/zero >/run/srvd/filler; true")
        service.start()
        with _load(port) as load:
            before, workers = service.pid, service.workers()
            service.box.signal(before, "KILL")
            service.wait_restarted(before)
            load.more()
            assert service.workers() == workers
        assert load.failed == []
        assert "the state is with the service manager alone" in service.journal()
        service.systemctl("stop")
    finally:
        service.box.run("umount", "-l", "/run/srvd")


def test_an_adopted_worker_has_its_folders_and_shared_memory_still(service: Service, port: int) -> None:
    """systemd makes new temporary folders for each start of a unit, and removes the old ones, if it is told to."""
    service.install(_config(port), code=KEEPS_THINGS)
    service.start()
    before, workers = service.pid, service.workers()
    assert _post(port) == KEPT
    service.box.signal(before, "KILL")
    service.wait_restarted(before)
    assert service.workers() == workers
    assert stays(lambda: _post(port) == KEPT, 2.0, every=0.5)  # systemd removes them beside its other work


# -- what surrounds it ----------------------------------------------------------------------------------------------


def test_pools_may_change_their_user_with_the_drop_in(service: Service, port: int) -> None:
    code = apps.good() + "\nassert os.getuid() == __import__('pwd').getpwnam('srvd').pw_uid\n"
    service.install(_config(port, 'workers = 1\nuser = "srvd"'), code=code)
    _let_change_users(service)
    service.start()
    with _load(port, 1) as load:
        load.more(5)
    uid = service.box.run("stat", "--format=%u", f"/proc/{service.pid}").stdout.strip()
    assert uid == "0"
    service.systemctl("stop")
    assert service.show("Result") == "success"


def test_a_daemon_that_is_root_sees_and_adopts_workers_of_other_users(service: Service, port: int) -> None:
    service.install(_config(port, 'workers = 2\nuser = "srvd"'), code=KEEPS_THINGS)
    _let_change_users(service)
    service.start()
    before, workers = service.pid, service.workers()
    assert all(worker["rss_bytes"] for worker in service.status()["pools"][0]["workers"])
    assert _post(port) == KEPT
    with _load(port, 2) as load:
        wait_for(service.is_state_written, within=20)
        service.box.signal(before, "KILL")
        service.wait_restarted(before)
        load.more()
        assert service.workers() == workers
        assert all(worker["rss_bytes"] for worker in service.status()["pools"][0]["workers"])
        service.systemctl("reload")
        load.more()
    assert load.failed == []
    service.ctl("dump", next(iter(service.workers())))
    service.systemctl("stop")
    assert service.show("Result") == "success"


def test_pools_of_two_users_serve_each_as_its_own_below_an_instance_that_is_root(box: Box, port: int) -> None:
    service = Service(box, "srvd@shop.service")
    other = free_port()
    box.run("useradd", "--system", "shop")
    code = apps.good() + "\nRELEASE = __import__('pwd').getpwuid(os.getuid()).pw_name\n"
    try:
        service.install(TWO_USERS.format(port=port, other=other), code=code)
        folder = box.path("/etc/systemd/system/srvd@.service.d")
        folder.mkdir(exist_ok=True)
        shutil.copy(UNITS / "change-user.conf", folder)
        box.run("systemctl", "daemon-reload")
        service.start()
        with _load(port) as load, _load(other) as others:
            service.systemctl("reload")
            load.more()
            others.more()
            service.systemctl("restart")
            load.more()
            others.more()
        assert load.failed + others.failed == []
        assert (load.releases, others.releases) == ({"shop"}, {"srvd"})
    finally:
        service.remove()
        shutil.rmtree(box.path("/etc/systemd/system/srvd@.service.d"), ignore_errors=True)
        box.run("userdel", "shop")


LEVELS = {"INFO": "6", "WARN": "4", "ERROR": "3"}


def test_each_entry_of_the_journal_has_the_priority_of_its_level(service: Service, port: int) -> None:
    service.install(_config(port), "Restart=no")
    service.start()
    service.deploy(BROKEN)
    service.systemctl("reload", check=False)
    service.box.signal(next(iter(service.workers().values())), "KILL")
    wait_for(lambda: "signal 9" in service.journal(), within=20)
    service.systemctl("restart", check=False)
    wait_for(lambda: service.state == "failed", within=20)
    entries = [json.loads(line) for line in service.journal("--output=json").splitlines()]
    found = {
        (words[2], entry["PRIORITY"])
        for entry in entries
        if len(words := entry["MESSAGE"].split(maxsplit=3)) == 4 and words[2] in LEVELS
    }
    assert found == set(LEVELS.items())
    assert "    raise RuntimeError(" in service.journal("--priority=err")  # all of a traceback, as the line above it
    service.configure(_config(port, "workers = -1"))
    service.systemctl("start", check=False)
    assert "pools.web.workers: found -1" in service.journal("--priority=err")


def test_logrotate_moves_the_log_and_srvd_begins_a_new_one(service: Service, port: int) -> None:
    service.install('[daemon]\nlog_file = "/var/log/srvd/srvd.log"\n' + _config(port))
    service.start()
    log = service.box.path("/var/log/srvd/srvd.log")
    assert "ready" in log.read_text()
    service.box.run("logrotate", "--force", "/etc/logrotate.d/srvd")
    wait_for(lambda: log.exists() and "reopen" in log.read_text(), within=20)
    assert "ready" in log.with_name("srvd.log.1").read_text()


def _score(box: Box, unit: str) -> float:
    said = box.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])


def test_the_units_are_well_formed_and_expose_no_more_than_is_written_down(service: Service, port: int) -> None:
    service.install(_config(port), socket="")
    places = service.box.path("/etc/systemd/system")
    shutil.copy(UNITS / "srvd@.service", places)
    shutil.copy(UNITS / "srvd.socket", places)
    done = service.box.run("systemd-analyze", "verify", "srvd.service", "srvd@shop.service", "srvd.socket")
    assert done.stdout + done.stderr == ""
    assert _score(service.box, "srvd.service") <= SCORES["srvd.service"]
    assert _score(service.box, "srvd@shop.service") <= SCORES["srvd.service"]
    shutil.copy(UNITS / "change-user.conf", places / "srvd.service.d")
    service.box.run("systemctl", "daemon-reload")
    assert _score(service.box, "srvd.service") <= SCORES["change-user.conf"]
