"""Claims about a daemon under a service manager: what it tells it and when, and the sockets that it is given.

The manager is tests/support/service_manager.py; a real systemd is in test_systemd_container.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

from srvd.core.state.model import SupervisorState
from srvd.core.status.summary import Bulletin, Condition
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.systemd_notifier import BEAT, EXTENSION, RETRY, SystemdNotifier
from srvd.linux.systemd import Unit, clip, read_unit
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BIN, Srvd, free_port, is_alive, toml
from tests.support.service_manager import ServiceManager, passing
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

WAITS = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
"""In front of an application: its import ends when there is a file `go`."""

TELLS_ITS_ENVIRONMENT = """
import os
AT_IMPORT = dict(os.environ)
def app(environ, start_response):
    start_response("200 OK", [])
    return ["\\n".join([*AT_IMPORT, *os.environ]).encode()]
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    with ServiceManager(tmp_path) as manager:
        yield manager


# -- what it tells --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_ready_is_said_once_all_wished_workers_serve(starter: Starter, tmp_path: Path, abstract: bool) -> None:
    with ServiceManager(tmp_path, abstract=abstract) as manager:
        srvd = starter.new("--workers", "3", env=manager.environment, code=apps.good(before=WAITS))
        srvd.start(ready=False)
        manager.wait_line("STATUS=starting: web: 0 of 3 workers serve")
        assert stays(lambda: not any("READY=1" in one.lines for one in manager.listen()), 0.5)
        (srvd.folder / "go").touch()
        ready = manager.heard[manager.wait_line("READY=1")]
        assert ready.lines == ("READY=1", f"MAINPID={srvd.pid}", "STATUS=web: 3 workers serve")
        assert len(srvd.serving()) == 3
        assert {one.pid for one in manager.heard} == {srvd.pid}


def test_a_slow_start_asks_for_time_before_anything_else(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter(env=manager.environment)
    first = manager.listen()[0]
    assert first["EXTEND_TIMEOUT_USEC"] == f"{EXTENSION * 1e6:.0f}"
    assert first["STATUS"].startswith("starting")
    assert srvd.is_ready()


def test_a_failed_start_says_why_and_is_never_ready(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter.new(env=manager.environment, code="raise RuntimeError('no database\\nREADY=1')\n")
    assert srvd.run().returncode == 1
    place = manager.wait_line("STOPPING=1")
    assert "could not start" in manager.heard[place]["STATUS"]
    assert "importing app raised (see the log)" in manager.status
    assert "no database" not in manager.status  # a service manager shows it to every user
    assert not any("READY=1" in one.lines for one in manager.listen())


def test_a_port_in_use_is_told_too(starter: Starter, manager: ServiceManager) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert starter.new("--bind", f"127.0.0.1:{port}", env=manager.environment).run().returncode == 71
    assert f"could not start: listen on 127.0.0.1:{port}" in manager.status


def test_a_reload_is_told_from_its_beginning_to_its_end(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter(env=manager.environment)
    before = time.monotonic_ns() // 1000
    assert srvd.ctl("reload").returncode == 0
    begun = manager.wait_line("RELOADING=1")
    assert before <= int(manager.heard[begun]["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    ready = manager.wait_line("READY=1", after=begun)
    assert manager.heard[ready]["STATUS"] == "web: 2 workers serve"
    between = manager.heard[begun:ready]
    assert all(one["STATUS"].startswith("reload 2") for one in between)


def test_a_failed_reload_is_over_too_and_its_reason_stays_in_sight(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter(env=manager.environment)
    srvd.deploy("raise RuntimeError('the deploy is broken')\n")
    assert srvd.ctl("reload").returncode == 1
    ready = manager.wait_line("READY=1", after=manager.wait_line("RELOADING=1"))
    status = manager.heard[ready]["STATUS"]
    assert status.startswith("web: 2 workers serve; reload 2 failed: ")
    assert "importing app raised (see the log)" in status
    srvd.wait_logged("the deploy is broken")
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    wait_for(lambda: manager.status == "web: 2 workers serve")


def test_stopping_is_said_while_requests_are_answered(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter("--workers", "1", env=manager.environment)
    with closing(srvd.connect()) as client:
        client.request("GET", "/sleep/1")
        wait_for(lambda: srvd.serving()[0]["busy"])
        srvd.signal(signal.SIGTERM)
        place = manager.wait_line("STOPPING=1")
        assert manager.heard[place]["STATUS"] == "stopping: 1 worker to finish"
        assert int(manager.heard[place]["EXTEND_TIMEOUT_USEC"]) > 0
        assert client.getresponse().status == 200
    assert srvd.wait() == 0
    assert manager.status == "stopping"


def test_the_status_follows_what_happens_and_nothing_is_said_without_a_change(
    starter: Starter, manager: ServiceManager
) -> None:
    srvd = starter(config=toml("workers = 2\nbake = 0"), env=manager.environment)
    manager.wait_line("READY=1")
    assert srvd.ctl("scale", "3").returncode == 0
    wait_for(lambda: manager.status == "web: 3 workers serve")
    after = len(manager.heard)
    srvd.kill_worker()
    manager.wait_line("STATUS=web: 2 of 3 workers serve", after)
    manager.wait_line("STATUS=web: 3 workers serve", after)
    assert srvd.ctl("pause").returncode == 0
    wait_for(lambda: manager.status == "web is paused")
    count = len(manager.listen())
    assert stays(lambda: len(manager.listen()) == count, 1.0)


def test_an_upgrade_goes_on_speaking_for_the_same_process(starter: Starter, manager: ServiceManager) -> None:
    # An upgrade has as long as the watchdog waits, which a busy machine may need.
    srvd = starter(env=manager.environment | {"FDSTORE": "4", "WATCHDOG_USEC": "6000000"})
    manager.wait_line("READY=1")
    wait_for(lambda: len(manager.listeners) == 1)
    after = len(manager.listen())
    assert srvd.ctl("upgrade").returncode == 0
    begun = manager.wait_line("RELOADING=1", after)
    assert manager.heard[begun]["STATUS"].startswith("upgrade 2: ")
    manager.wait_line("READY=1", begun)
    assert manager.status == "web: 2 workers serve"
    beats = _beats(manager)
    wait_for(lambda: _beats(manager) > beats)
    new = manager.heard[after:]
    assert {one.pid for one in new} == {srvd.pid}
    assert {one["MAINPID"] for one in new} <= {"", str(srvd.pid)}
    assert not any("STOPPING=1" in one.lines or one["FDNAME"] for one in new)


def test_an_upgrade_keeps_the_sockets_that_were_passed_and_their_names(
    starter: Starter, passed: list[socket.socket]
) -> None:
    srvd = passing(starter.new(config=toml(more="[listeners.api]")), _fds(passed[:2]), "web:api").start()
    before = _addresses(srvd)
    assert srvd.ctl("upgrade").returncode == 0
    assert srvd.ctl("reload").returncode == 0
    assert _addresses(srvd) == before
    for process in [*srvd.family(), psutil.Process(srvd.pid)]:
        assert "LISTEN_FDS" not in process.environ()


def test_a_daemon_in_the_background_is_announced_by_the_process_that_was_started(
    starter: Starter, manager: ServiceManager
) -> None:
    """A manager listens to the main process only: it has to hear of another one before that speaks."""
    srvd = starter.new(env=manager.environment)
    assert srvd.daemonize().returncode == 0
    manager.wait_line("READY=1")
    first, *rest = manager.heard
    assert first.lines == (f"MAINPID={srvd.pid}",)
    assert first.pid != srvd.pid
    assert {one.pid for one in rest} == {srvd.pid}


def test_a_manager_that_cannot_be_reached_costs_a_warning(starter: Starter, tmp_path: Path) -> None:
    srvd = starter(env={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    srvd.wait_logged("it is told the next time that something changes")
    assert srvd.get().startswith("one ")
    with closing(ServiceManager.at(tmp_path / "nobody")) as manager:
        assert srvd.ctl("reload").returncode == 0
        manager.wait_line("READY=1")
    assert srvd.logged().count("tell the service manager") == 1
    odd = starter(env={"NOTIFY_SOCKET": "vsock:2:1"})
    odd.wait_logged("it is neither a path nor an abstract name")
    assert odd.get().startswith("one ")


def test_what_the_manager_said_is_not_for_applications(starter: Starter, manager: ServiceManager) -> None:
    said = {"WATCHDOG_USEC": "20000000", "FDSTORE": "4", "LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "x"}
    srvd = starter(env=manager.environment | said, code=TELLS_ITS_ENVIRONMENT)
    seen = set(srvd.get().split("\n"))
    assert "PATH" in seen
    assert not seen & {"NOTIFY_SOCKET", "WATCHDOG_PID", *said}


# -- the watchdog ---------------------------------------------------------------------------------------------------


def _beats(manager: ServiceManager) -> int:
    return sum("WATCHDOG=1" in one.lines for one in manager.listen())


def test_the_watchdog_is_fed_while_the_loop_turns_and_only_then(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter(env=manager.environment | {"WATCHDOG_USEC": "200000"})
    wait_for(lambda: _beats(manager) >= 5)
    srvd.signal(signal.SIGSTOP)
    try:
        wait_for(lambda: psutil.Process(srvd.pid).status() == psutil.STATUS_STOPPED)
        count = _beats(manager)
        assert stays(lambda: _beats(manager) == count, 1.0)
    finally:
        srvd.signal(signal.SIGCONT)
    wait_for(lambda: _beats(manager) > count)


def test_a_daemon_that_the_watchdog_kills_leaves_its_stack(starter: Starter) -> None:
    srvd = starter()
    assert srvd.ctl("upgrade").returncode == 0  # also after one
    srvd.die(signal.SIGABRT)
    srvd.wait_logged("Fatal Python error: Aborted")
    srvd.wait_logged('srvd/daemon/loop.py", line')
    srvd.start()


def test_a_watchdog_is_fed_right_before_an_upgrade_and_outlasts_the_way_back(manager: ServiceManager) -> None:
    """A new program that hangs in the daemon's place gives way before the manager kills it."""
    notifier = SystemdNotifier(Unit(manager.address, watchdog=30.0), SupervisorState(), dict, list[str]().append)
    assert 10 <= notifier.beat() <= 20
    assert manager.listen()[-1].lines == ("WATCHDOG=1",)
    notifier.close()
    without = SystemdNotifier(Unit(manager.address), SupervisorState(), dict, list[str]().append)
    count = len(manager.heard)
    assert without.beat() == 0
    assert len(manager.listen()) == count
    without.close()


def test_there_is_no_store_without_a_manager() -> None:
    said = {"FDSTORE": "8", "WATCHDOG_USEC": "x"}
    assert read_unit(dict(said), 7) == Unit()
    assert read_unit(said | {"NOTIFY_SOCKET": "/run/notify"}, 7) == Unit("/run/notify", store=8)


def test_a_watchdog_of_another_process_is_not_fed(starter: Starter, manager: ServiceManager) -> None:
    starter(env=manager.environment | {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"})
    manager.wait_line("READY=1")
    assert stays(lambda: _beats(manager) == 0, 1.0)


class Clock:
    """The part of an event loop that a notifier uses, with a time that the test tells."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Clock.Entry:
        entry = (self.now + delay, callback)
        self.timers.append(entry)
        return Clock.Entry(self, entry)

    class Entry:
        def __init__(self, clock: Clock, entry: tuple[float, Callable[[], object]]) -> None:
            self.clock, self.entry = clock, entry

        def cancel(self) -> None:
            self.clock.timers.remove(self.entry)

    def until(self, now: float) -> None:
        while self.timers and min(self.timers)[0] <= now:
            entry = min(self.timers, key=lambda timer: timer[0])
            self.timers.remove(entry)
            self.now = entry[0]
            entry[1]()
        self.now = now


def _notifier(manager: ServiceManager, state: SupervisorState, warned: list[str]) -> tuple[SystemdNotifier, Clock]:
    notifier = SystemdNotifier(Unit(manager.address), state, dict, warned.append)
    notifier.look()
    clock = Clock()
    notifier.attach(clock)
    notifier.look()
    return notifier, clock


def test_a_long_change_asks_for_more_time_again_and_again_until_it_is_over(manager: ServiceManager) -> None:
    state, warned = SupervisorState(), list[str]()
    notifier, clock = _notifier(manager, state, warned)
    clock.until(10 * BEAT)
    asked = [one for one in manager.listen() if one["EXTEND_TIMEOUT_USEC"]]
    assert len(asked) == 11
    assert EXTENSION > 2 * BEAT
    state.started = True
    notifier.look()
    assert clock.timers == []  # nothing wakes an idle daemon
    assert "READY=1" in manager.listen()[-1].lines
    assert warned == []
    notifier.close()


def test_what_a_full_queue_refuses_is_told_later(manager: ServiceManager) -> None:
    state, warned = SupervisorState(), list[str]()
    notifier, clock = _notifier(manager, state, warned)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        other.connect(manager.address)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.send(b"X_FULL=1")
    state.started = True
    notifier.look()
    assert not any("READY=1" in one.lines for one in manager.listen())
    clock.until(2 * RETRY)
    assert "READY=1" in manager.listen()[-1].lines
    assert clock.timers == []
    assert warned == []
    notifier.close()


@pytest.mark.parametrize("refusal", [errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS])
def test_what_the_kernel_refuses_for_now_is_told_later(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    state, warned = SupervisorState(), list[str]()
    notifier, clock = _notifier(manager, state, warned)

    def refuses(*_: object) -> int:
        raise OSError(refusal, os.strerror(refusal))

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "sendmsg", refuses)
        state.started = True
        notifier.look()
    clock.until(2 * RETRY)
    assert "READY=1" in manager.listen()[-1].lines
    assert warned == []
    notifier.close()


def test_a_sentence_is_cut_before_the_manager_drops_the_whole_message(
    manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd ignores what is longer than 4096 bytes, and READY would be in it."""
    long = Bulletin(Condition.READY, "web: 4 workers serve; " * 500)
    monkeypatch.setattr("srvd.daemon.systemd_notifier.bulletin", lambda _: long)
    notifier, _ = _notifier(manager, SupervisorState(), [])
    (ready,) = manager.listen()
    assert "READY=1" in ready.lines
    assert 1000 < len(ready.text.encode()) < 4096
    notifier.despair("the configuration is wrong: " * 500)
    assert len(manager.listen()[-1].text.encode()) < 4096
    notifier.close()


@pytest.mark.parametrize("char", ["x", "ü", "\U0001f600", "\udc80"])
def test_a_sentence_that_is_cut_is_whole_text(char: str) -> None:
    assert clip(char * 500) == char * 500
    for length in range(2000, 2100):
        cut = clip(char * length).encode("utf-8", "replace")
        assert len(cut) <= 2048
        cut.decode()


# -- sockets that were passed ---------------------------------------------------------------------------------------


@pytest.fixture
def passed() -> Iterator[list[socket.socket]]:
    """Three listening sockets, as a service manager holds them."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    yield listeners
    for listener in listeners:
        listener.close()


def _fds(listeners: list[socket.socket]) -> list[int]:
    return [listener.fileno() for listener in listeners]


def _addresses(srvd: Srvd) -> list[tuple[str, str]]:
    return [(entry["name"], entry["address"]) for entry in srvd.status()["listeners"]]


def _spelled(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"


def test_sockets_go_to_the_listeners_of_their_names(starter: Starter, passed: list[socket.socket]) -> None:
    own, unused = free_port(), free_port()
    more = f'[listeners.admin]\nbind = ["127.0.0.1:{own}"]\n[listeners.api]\nbind = ["127.0.0.1:{unused}"]'
    srvd = passing(starter.new(config=toml(more=more)), _fds(passed), "api:web:api").start()
    first, second, third = map(_spelled, passed)
    assert sorted(_addresses(srvd)) == sorted(
        [("web", second), ("admin", f"127.0.0.1:{own}"), ("api", first), ("api", third)]
    )
    for listener in passed:
        with socket.create_connection(listener.getsockname(), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert srvd.get(listener="admin").startswith("one ")
    assert srvd.ctl("reload").returncode == 0
    assert len(_addresses(srvd)) == 4


def test_an_address_that_is_not_used_is_a_warning(starter: Starter, passed: list[socket.socket]) -> None:
    same = passing(starter.new(config=toml(bind=_spelled(passed[0]))), _fds(passed[:1]), "web").start()
    other = passing(starter.new(config=toml(bind="127.0.0.1:1")), _fds(passed[1:2]), "web").start()
    assert "is not used" not in same.logged()
    other.wait_logged(f"bind (127.0.0.1:1) is not used: systemd passed {_spelled(passed[1])}")


def test_sockets_without_a_name_are_for_the_only_listener(starter: Starter, passed: list[socket.socket]) -> None:
    srvd = passing(starter.new(config="[pools.web]\napp = 'app:app'\n"), _fds(passed[:2])).start()
    assert _addresses(srvd) == [("web", _spelled(passed[0])), ("web", _spelled(passed[1]))]


def test_a_socket_for_nobody_ends_the_start_and_says_what_to_do(starter: Starter, passed: list[socket.socket]) -> None:
    srvd = passing(starter.new(config=toml()), _fds(passed[:2]), "web:srvd.socket")
    done = srvd.run()
    assert done.returncode == 78
    assert "descriptor 4" in done.stderr
    assert "'srvd.socket'" in done.stderr
    assert "FileDescriptorName=" in done.stderr


def test_a_reload_may_forget_a_socket(starter: Starter, passed: list[socket.socket]) -> None:
    srvd = passing(starter.new(config=toml(more="[listeners.api]")), _fds(passed[:2]), "web:api").start()
    srvd.configure(toml("bake = 0"))
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get().startswith("one web/2#")


def test_sockets_of_another_process_are_left_alone(starter: Starter) -> None:
    srvd = starter(env={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert srvd.get().startswith("one ")


@pytest.mark.parametrize(
    ("variables", "what"),
    [("LISTEN_FDS=x", "'x' is no number"), ("LISTEN_FDS=9", "descriptor "), ("LISTEN_FDNAMES=a:b", "2 names for 1")],
)
def test_what_cannot_be_meant_is_refused(
    starter: Starter, passed: list[socket.socket], variables: str, what: str
) -> None:
    srvd = passing(starter.new(config=toml()), _fds(passed[:1]))
    name, _, value = variables.partition("=")
    place = srvd.command.index("-c") + 1
    srvd.command[place] = srvd.command[place].replace("os.execv", f"os.environ[{name!r}] = {value!r}\nos.execv")
    done = srvd.run()
    assert done.returncode == 78
    assert what in done.stderr


def test_an_application_holds_only_the_listeners_of_its_pool(starter: Starter, passed: list[socket.socket]) -> None:
    """Passed descriptors have no close-on-exec; what is not the pool's must not leak into its processes."""
    srvd = passing(starter.new(config=toml('listeners = ["web"]', "[listeners.api]")), _fds(passed[:2]), "web:api")
    srvd.start()
    inodes = [os.fstat(listener.fileno()).st_ino for listener in passed[:2]]
    for process in srvd.family():
        held = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{process.pid}/fd")]
        assert [held.count(f"socket:[{inode}]") for inode in inodes] == [1, 0]


def test_who_waits_at_a_passed_socket_is_answered_by_the_next_daemon(
    starter: Starter, passed: list[socket.socket]
) -> None:
    first = passing(starter.new(config=toml("workers = 1")), _fds(passed[:1]), "web").start()
    busy = first.connect()
    busy.request("GET", "/sleep/1")
    wait_for(lambda: first.serving()[0]["busy"])
    first.signal(signal.SIGTERM)
    first.wait_logged("pool web leaves")
    with socket.create_connection(passed[0].getsockname(), timeout=30) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        with closing(busy):
            assert busy.getresponse().status == 200
        assert first.wait() == 0
        second = passing(
            starter.new(config=toml("workers = 1"), code=apps.good("two")), _fds(passed[:1]), "web"
        ).start()
        answer = b""
        while chunk := waiting.recv(4096):
            answer += chunk
        assert b"two " in answer
    assert second.is_ready()


# -- the fd store ---------------------------------------------------------------------------------------------------


def _stored(srvd: Srvd, manager: ServiceManager, sockets: Mapping[str, int] = MappingProxyType({})) -> Srvd:
    """Started anew it is given what is in the store, behind the sockets of socket units."""
    srvd.command = srvd.command[srvd.command.index(str(BIN / "srvd")) :]  # without the launcher of the former start
    table = {**sockets, **manager.store}
    return passing(srvd, list(table.values()), ":".join(table))


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix:web.sock", "unix:@srvd-test-store"])
def test_a_restart_hands_the_listeners_over_with_all_who_wait_there(
    starter: Starter, manager: ServiceManager, bind: str
) -> None:
    variables = manager.environment | {"FDSTORE": "4"}
    first = starter(config=toml("workers = 1", bind=bind), env=variables)
    wait_for(lambda: len(manager.listeners) == 1)
    held = socket.socket(fileno=os.dup(next(iter(manager.listeners.values()))))
    with held, socket.socket(held.family) as early, socket.socket(held.family) as late:
        early.connect(held.getsockname())
        early.sendall(b"GET /sleep/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        wait_for(lambda: first.serving()[0]["busy"])
        first.signal(signal.SIGRTMIN)
        manager.wait_line("STOPPING=1")
        late.connect(held.getsockname())
        late.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"one " in _all(early)
        assert first.wait() == 0
        assert manager.listen()
        assert manager.store == manager.listeners  # nobody is left to be adopted
        assert len(manager.store) == 1
        first.good("two")
        _stored(first, manager).start()
        assert b"two " in _all(late)
    assert len(manager.listeners) == 1


def _all(client: socket.socket) -> bytes:
    client.settimeout(30)
    answer = b""
    while chunk := client.recv(4096):
        answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 OK")
    return answer


def test_a_stop_takes_everything_out_of_the_store(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter(env=manager.environment | {"FDSTORE": "4"})
    wait_for(lambda: len(manager.listeners) == 1)
    address = srvd.address()
    assert srvd.stop() == 0
    assert manager.listen()
    assert manager.store == {}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_the_store_follows_the_configuration(starter: Starter, manager: ServiceManager) -> None:
    two = toml("rollback_window = 0\nbake = 0", f'[listeners.api]\nbind = ["127.0.0.1:{free_port()}"]')
    srvd = starter(config=two, env=manager.environment | {"FDSTORE": "4"})
    wait_for(lambda: len(manager.listeners) == 2)
    srvd.configure(toml("rollback_window = 0\nbake = 0"))
    assert srvd.ctl("reload").returncode == 0
    wait_for(lambda: len(manager.listeners) == 1)


def test_a_store_that_is_too_small_is_a_warning(starter: Starter, manager: ServiceManager) -> None:
    more = f'[listeners.api]\nbind = ["127.0.0.1:{free_port()}"]'
    srvd = starter(config=toml(more=more), env=manager.environment | {"FDSTORE": "1"})
    wait_for(lambda: len(manager.listeners) == 1)
    assert srvd.logged().count("takes 1 of 4 descriptors") == 1


def test_without_a_store_nothing_is_stored(starter: Starter, manager: ServiceManager) -> None:
    starter(env=manager.environment)
    manager.wait_line("READY=1")
    assert manager.store == {}


# -- the state in the store -----------------------------------------------------------------------------------------


STORE = {"FDSTORE": "8"}


def _pids(srvd: Srvd) -> dict[str, int]:
    return {worker["id"]: worker["pid"] for worker in srvd.serving()}


def _states(manager: ServiceManager) -> list[int]:
    manager.listen()
    return [fd for name, fd in manager.store.items() if name.startswith("srvd/state/")]


def _is_deposited(srvd: Srvd, manager: ServiceManager) -> bool:
    """Whether the state that the manager keeps has everybody who serves."""
    kept = [found.data for fd in _states(manager) if (found := StoreCopy("", fd).read()) is not None]
    return any(all(name.encode() in data for name in _pids(srvd)) for data in kept)


def _die(srvd: Srvd, manager: ServiceManager) -> dict[str, int]:
    """The daemon is killed, and its folder cleaned; who served."""
    wait_for(lambda: _is_deposited(srvd, manager))
    before = _pids(srvd)
    srvd.die()
    manager.listen()
    for left in srvd.folder.glob("control.sock*"):
        left.unlink()
    return before


def test_a_daemon_that_died_is_succeeded_though_its_folder_was_cleaned(
    starter: Starter, manager: ServiceManager
) -> None:
    srvd = starter(config=toml("workers = 2"), env=manager.environment | STORE)
    held = {"srvd/family", "srvd/state"}
    with srvd.under_load(clients=4) as load:
        for _ in range(2):  # also one that was adopted so
            before = _die(srvd, manager)
            load.more()
            fresh = len(manager.listen())
            _stored(srvd, manager).start()
            manager.wait_line("READY=1", fresh)
            load.more()
            assert _pids(srvd) == before
            assert not any(one["FDNAME"] for one in manager.heard[fresh:])  # the same is in the store
            assert manager.heard[fresh]["STATUS"].startswith("looking for the processes")
            assert manager.heard[fresh]["EXTEND_TIMEOUT_USEC"] == "60000000"
            assert {name.rpartition("/")[0] for name in manager.store} >= held
        assert srvd.ctl("reload").returncode == 0
        load.more()
        assert not before.items() & _pids(srvd).items()
    assert load.failed == []
    assert "sent away" not in srvd.logged()


def test_what_came_after_an_adoption_is_adopted_too(starter: Starter, manager: ServiceManager) -> None:
    """The zygote of a reload gets the lock that came from the store."""
    srvd = starter(config=toml("workers = 1\nbake = 0\nrollback_window = 0"), env=manager.environment | STORE)
    _die(srvd, manager)
    _stored(srvd, manager).start()
    assert srvd.ctl("reload").returncode == 0
    wait_for(lambda: len(srvd.family()) == 2)
    with srvd.under_load(clients=2) as load:
        before = _die(srvd, manager)
        _stored(srvd, manager).start()
        assert _pids(srvd) == before
        load.more()
    assert load.failed == []


def test_an_upgrade_goes_on_writing_what_the_manager_keeps(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter(config=toml("workers = 1"), env=manager.environment | STORE)
    wait_for(lambda: _is_deposited(srvd, manager))
    assert srvd.ctl("upgrade").returncode == 0
    assert srvd.ctl("scale", "3").returncode == 0
    before = _die(srvd, manager)
    assert len(before) == 3
    _stored(srvd, manager).start()
    assert _pids(srvd) == before
    assert len(_states(manager)) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGRTMIN], ids=["stop", "restart"])
def test_after_a_good_end_nobody_is_looked_for_whatever_is_in_the_store(
    starter: Starter, manager: ServiceManager, how: int
) -> None:
    srvd = starter(config=toml("workers = 1"), env=manager.environment | STORE)
    wait_for(lambda: _is_deposited(srvd, manager))
    left = {name: os.dup(fd) for name, fd in manager.store.items() if not name.startswith("srvd/listener/")}
    srvd.signal(how)
    assert srvd.wait() == 0
    manager.listen()
    assert not left.keys() & manager.store.keys()
    manager.store |= left  # as if it had not been told
    _stored(srvd, manager).start()
    assert "adopted" not in srvd.logged()
    assert "sent away" not in srvd.logged()
    wait_for(lambda: not left.keys() & manager.store.keys() if manager.listen() else False)
    assert len(_states(manager)) == 1


def test_who_died_with_the_daemon_is_not_waited_for(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter(config=toml("workers = 1"), env=manager.environment | STORE)
    before = _die(srvd, manager)
    for process in srvd.adopted:
        process.kill()
    wait_for(lambda: not any(map(is_alive, srvd.adopted)))
    _stored(srvd, manager).start()
    assert before.keys() == _pids(srvd).keys()
    assert not before.items() & _pids(srvd).items()
    wait_for(lambda: len(_states(manager)) == 1)
    _die(srvd, manager)
    _stored(srvd, manager).start()
    srvd.wait_logged("are adopted")


@pytest.mark.parametrize("where", ["file", "store"])
def test_the_later_state_of_two_is_gone_on_with(starter: Starter, manager: ServiceManager, where: str) -> None:
    """Either place may have refused what was written last."""
    srvd = starter(config=toml("workers = 1"), env=manager.environment | STORE)
    wait_for(lambda: _is_deposited(srvd, manager))
    (memory,) = _states(manager)
    file = srvd.folder / "control.sock.state"
    old = file.read_bytes() if where == "store" else os.pread(memory, os.fstat(memory).st_size, 0)
    assert srvd.ctl("scale", "2").returncode == 0
    wait_for(lambda: _is_deposited(srvd, manager) and all(name.encode() in file.read_bytes() for name in _pids(srvd)))
    before = _pids(srvd)
    srvd.die()
    if where == "store":
        file.write_bytes(old)
    else:
        os.ftruncate(memory, 0)
        os.pwrite(memory, old, 0)
    _stored(srvd, manager).start()
    assert _pids(srvd) == before


def test_a_state_that_cannot_be_read_in_either_place_stops_no_start(starter: Starter, manager: ServiceManager) -> None:
    srvd = starter(config=toml("workers = 1"), env=manager.environment | STORE)
    with srvd.under_load(clients=2) as load:
        _die(srvd, manager)
        (memory,) = _states(manager)
        os.ftruncate(memory, 200)
        left = list(srvd.adopted)
        _stored(srvd, manager).start()
        load.more()
        wait_for(lambda: not any(map(is_alive, left)), within=60)
        load.more()
    assert load.failed == []
    srvd.wait_logged("sent away")
    assert (srvd.folder / "control.sock.family").exists()  # who begins anew is found by the path again


def test_an_heir_holds_nothing_twice(starter: Starter, manager: ServiceManager) -> None:
    """The store gives back what the workers bring, too."""
    srvd = starter(config=toml("workers = 2"), env=manager.environment | STORE)
    _die(srvd, manager)
    _stored(srvd, manager).start()
    held = []
    for entry in os.scandir(f"/proc/{srvd.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            held.append(os.readlink(entry.path))
    inode = os.fstat(next(iter(manager.listeners.values()))).st_ino
    assert held.count(f"socket:[{inode}]") == 1
    assert sum("memfd:srvd-state" in one for one in held) == 1
    assert sum("control.sock.family" in one for one in held) == 1


def test_sockets_that_were_passed_stay_with_those_who_are_adopted(
    starter: Starter, manager: ServiceManager, passed: list[socket.socket]
) -> None:
    units = {"web": passed[0].fileno(), "api": passed[1].fileno()}
    config = toml("workers = 1\nbake = 0\nrollback_window = 0", "[listeners.api]")
    srvd = _stored(starter.new(config=config, env=manager.environment | STORE), manager, units).start()
    before = _addresses(srvd)
    with srvd.under_load(clients=2) as load:
        for _ in range(2):
            workers = _die(srvd, manager)
            load.more()
            _stored(srvd, manager, units).start()
            load.more()
            assert _pids(srvd) == workers
            assert _addresses(srvd) == before
            assert not manager.listeners  # they are systemd's already
        assert srvd.ctl("reload").returncode == 0
        assert srvd.ctl("upgrade").returncode == 0
        assert srvd.ctl("reload").returncode == 0
        load.more()
        assert srvd.get(listener="api").startswith("one ")
    assert load.failed == []
    assert _addresses(srvd) == before
