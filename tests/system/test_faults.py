"""Faults from outside: processes stopped or killed at bad moments, files removed, descriptors and pipes full."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from srvd.errors import LoadFailed
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, ask, free_port, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


def test_the_daemon_killed_while_an_application_loads_leaves_nothing(starter: Starter) -> None:
    srvd = starter.new(code=apps.BROKEN["hangs at import"]).start(ready=False)
    srvd.wait_logged("control socket")
    family = wait_for(srvd.family)
    srvd.signal(signal.SIGKILL)
    srvd.wait()
    wait_for(lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
    srvd.socket.unlink()


def test_the_daemon_killed_while_a_worker_loads_the_application_leaves_nothing(starter: Starter) -> None:
    """Without preload the import hangs in the worker, which then never reads its link."""
    code = apps.good("one", apps.SLOW_IF_TOLD.format(seconds=1000))
    srvd = starter(config=toml('workers = 1\npreload = "off"\norphan_timeout = 0'), code=code)
    (srvd.folder / "slow").touch()
    srvd.order("scale", size=2)
    wait_for(lambda: any(worker["state"] == "booting" for worker in srvd.pool()["workers"]))
    family = srvd.family()
    srvd.signal(signal.SIGKILL)
    srvd.wait()
    wait_for(lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
    srvd.socket.unlink()


SCRIBBLING = """
import os
def app(environ, start_response):
    for fd in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{fd}"
        if "srvd-scoreboard" in (os.readlink(path) if os.path.islink(path) else ""):
            os.pwrite(int(fd), b"\\xff" * os.fstat(int(fd)).st_size, 0)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_a_worker_that_scribbles_on_the_scoreboard_hides_nobody(starter: Starter) -> None:
    srvd = starter("--workers", "2", code=SCRIBBLING)
    assert srvd.get() == "ok"
    requests = [worker["requests"] for worker in srvd.serving()]
    assert max(requests) == 2**53 - 1  # no number is read as more: the sum over lives must fit into 64 bits
    for words in (("status",), ("workers",), ("why",)):
        done = srvd.ctl(*words)
        assert (done.returncode, done.stderr) == (0, "")
    victim = srvd.kill_worker()
    srvd.wait_serving(2, without=victim)
    assert srvd.ctl("why").returncode == 0


def test_a_zygote_that_is_deaf_is_replaced(starter: Starter) -> None:
    """SIGSTOP: it lives and answers nothing. A worker that it does not fork in time tells."""
    srvd = starter(config=toml('workers = 2\nboot_timeout = "1s"'))
    (zygote,) = srvd.zygotes()
    os.kill(zygote.pid, signal.SIGSTOP)
    victim = srvd.kill_worker()
    wait_for(lambda: srvd.pool()["generation"] == 2)
    srvd.wait_serving(2, without=victim)
    wait_for(lambda: srvd.pool()["state"] == "ready")
    wait_for(lambda: not zygote.is_running())


def test_a_control_socket_that_was_removed_is_still_owned(starter: Starter, srvd: Srvd) -> None:
    """A cleaner of temporary files, perhaps. The lock beside it tells the truth."""
    srvd.socket.unlink()
    second = starter.new("--socket", str(srvd.socket))
    done = second.run()
    assert done.returncode == 71
    assert f"pid {srvd.pid}" in done.stderr
    srvd.signal(signal.SIGTERM)
    assert srvd.wait() == 0


def test_a_configuration_that_was_removed_stops_a_reload(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"))
    (srvd.folder / "srvd.toml").unlink()
    reload = srvd.ctl("reload")
    assert reload.returncode == 78
    assert "srvd.toml" in reload.stderr
    assert srvd.get().startswith("one ")


def test_descriptors_and_processes_are_as_before_after_many_troubles(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 3\nbake = 0\nrollback_window = 0"))
    srvd.status()  # it keeps a file of each worker open from now on
    fds, family = srvd.fds(), len(srvd.family())
    for round_ in range(5):
        for worker in srvd.serving():
            os.kill(worker["pid"], signal.SIGKILL)
        srvd.call("resume")
        srvd.call("scale", size=6)
        srvd.deploy(apps.BROKEN["calls os._exit" if round_ % 2 else "raises at import"])
        with pytest.raises(LoadFailed):
            srvd.call("reload")
        srvd.good(f"round{round_}")
        srvd.call("reload")
        srvd.call("recycle")
        srvd.call("scale", reset=True)
    wait_for(lambda: len(srvd.family()) == family)
    wait_for(lambda: (srvd.status(), srvd.fds() <= fds)[1])
    assert srvd.get().startswith("round4 ")


def test_a_worker_has_no_descriptor_that_is_not_its_own(srvd: Srvd) -> None:
    """Not the control socket, not the link or stderr of anybody else: these would keep others from seeing an end."""
    control = {line.split()[6] for line in _unix_sockets() if line.endswith(str(srvd.socket))}
    pipes: list[str] = []
    for worker in srvd.serving():
        targets = _targets(worker["pid"])
        assert not {f"socket:[{inode}]" for inode in control} & set(targets)
        assert len([target for target in targets if target.startswith("socket:")]) == 2  # listener, link
        pipes += _written_pipes(worker["pid"])
    assert len(pipes) >= 2  # each has its stderr
    assert len(set(pipes)) == len(pipes)
    (zygote,) = srvd.zygotes()
    targets = _targets(zygote.pid)
    assert len([target for target in targets if target.startswith("socket:")]) == 2
    assert not set(pipes) & set(targets)


def _unix_sockets() -> list[str]:
    with open("/proc/net/unix", encoding="utf-8") as file:
        return file.read().splitlines()


def _targets(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]


def _written_pipes(pid: int) -> set[str]:
    """Those that it keeps from ending. Reading ends do no such thing, and all have that of the lifeline."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        flags = int(Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split("flags:")[1].split()[0], 8)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return {target for target in found if target.startswith("pipe:")}


def test_a_log_that_nobody_reads_stops_nothing(starter: Starter) -> None:
    """stderr is a pipe whose reader has gone to sleep: lines are lost, and nothing else."""
    srvd = starter.new("--workers", "2", code=apps.good("one").replace("said on stderr", "said on stderr" * 300))
    reader, writer = os.pipe()
    try:
        srvd.process = subprocess.Popen(srvd.command, cwd=srvd.folder, env=srvd.env, stderr=writer, stdout=writer)
        wait_for(srvd.is_ready)
        for _ in range(40):  # more than a pipe holds
            assert srvd.get("/say").startswith("one ")
        victim = srvd.kill_worker()
        srvd.wait_serving(2, without=victim)
        assert srvd.call("reload")["operation"]["state"] == "done"
        srvd.signal(signal.SIGTERM)
        assert srvd.wait() == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_output_that_was_closed_does_no_harm(starter: Starter) -> None:
    """`srvd start >&- 2>&- <&-`: what is opened first must not be taken for a standard stream."""
    srvd = starter.new("--workers", "1")
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *srvd.command]
    srvd.process = subprocess.Popen(command, cwd=srvd.folder, env=srvd.env)
    wait_for(srvd.is_ready)
    assert srvd.get("/say").startswith("one ")
    victim = srvd.kill_worker()
    srvd.wait_serving(1, without=victim)
    assert srvd.call("reload")["operation"]["state"] == "done"
    assert srvd.get("/say").startswith("one ")


def test_a_request_that_hangs_is_noticed_beside_a_pool_with_more_patience(starter: Starter) -> None:
    """A request under a long request_timeout is watched already when one under a short one begins."""
    more = '[listeners.calm]\nbind = ["127.0.0.2:0"]\n[pools.calm]\napp = "app:app"\nlisteners = ["calm"]\nworkers = 1'
    srvd = starter(config=toml('workers = 1\nlisteners = ["web"]\nrequest_timeout = "1s"\ndrain_timeout = "1s"', more))
    with ThreadPoolExecutor() as pool:
        calm = pool.submit(srvd.get, "/until/over", "calm")
        wait_for(lambda: srvd.serving("calm")[0]["busy"])
        hung = pool.submit(srvd.get, "/hang")
        wait_for(lambda: srvd.serving("web")[0]["busy"])
        srvd.wait_serving(1, without="web/1#1")
        assert not calm.done()
        assert hung.exception(30) is not None
        os.kill(srvd.serving("calm")[0]["pid"], signal.SIGKILL)
        assert calm.exception(30) is not None


def test_a_request_that_hangs_after_a_quiet_time_is_noticed(starter: Starter) -> None:
    """The daemon has gone to sleep since the worker's last request: it must be woken for this one."""
    srvd = starter(config=toml('workers = 1\nrequest_timeout = "1s"\ndrain_timeout = "1s"'))
    srvd.get()
    quiet = time.monotonic()
    wait_for(lambda: time.monotonic() - quiet > 1.2, within=5)
    with ThreadPoolExecutor() as pool:
        hung = pool.submit(srvd.get, "/hang")
        srvd.wait_serving(1, without="web/1#1")
        assert hung.exception(30) is not None


def test_a_shorter_request_timeout_counts_from_the_reload_on(starter: Starter) -> None:
    """While a request of the former generation, which has more time, is still watched."""
    srvd = starter(config=toml('workers = 1\nrequest_timeout = "60s"'))
    with ThreadPoolExecutor() as pool:
        calm = pool.submit(srvd.get, "/until/over")
        wait_for(lambda: srvd.serving()[0]["busy"])
        srvd.configure(toml('workers = 1\nrequest_timeout = "1s"\ndrain_timeout = "1s"'))
        assert srvd.ctl("reload").returncode == 0
        hung = pool.submit(srvd.get, "/hang")
        srvd.wait_serving(1, without="web/2#2")
        assert not calm.done()
        assert hung.exception(30) is not None
        (srvd.folder / "over").touch()
        assert calm.result().startswith("one web/1#1 ")


@pytest.mark.parametrize("limit", ["60s", "0"])
def test_requests_do_not_wake_the_daemon(starter: Starter, limit: str) -> None:
    """Nor does an idle worker: figures are read from the scoreboard when somebody asks."""
    srvd = starter(config=toml(f'workers = 2\nrequest_timeout = "{limit}"'))
    daemon = psutil.Process(srvd.pid)
    client = srvd.connect()
    ask(client)
    before = daemon.num_ctx_switches().voluntary
    for _ in range(200):
        ask(client)
    assert daemon.num_ctx_switches().voluntary - before < 20
    client.close()


def test_a_reload_follows_a_link_that_was_switched(starter: Starter) -> None:
    """Releases in folders of their own, and a link to the current one, as deployment tools have it."""
    srvd = starter.new(config=toml('workers = 1\nchdir = "current"'))
    for release in ("r1", "r2"):
        (srvd.folder / release).mkdir()
        srvd.deploy(apps.good(release), f"{release}/app")
    current = srvd.folder / "current"
    current.symlink_to("r1")
    srvd.start()
    assert srvd.get().startswith("r1 ")
    current.unlink()
    current.symlink_to("r2")
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get().startswith("r2 ")


def test_a_start_with_nobody_wished_is_ready(starter: Starter) -> None:
    srvd = starter("--workers", "0")
    assert srvd.ctl("status").returncode == 0
    assert srvd.ctl("scale", "1").returncode == 0
    assert srvd.get().startswith("one ")


def test_settings_of_the_daemon_need_a_new_start_and_a_reload_says_so(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1", "[daemon]\nmax_workers = 10"))
    srvd.configure(toml("workers = 1", '[daemon]\nmax_workers = 20\nlog_level = "debug"'))
    assert srvd.ctl("reload").returncode == 0
    srvd.wait_logged("max_workers")
    (line,) = [line for line in srvd.ctl("config").stdout.splitlines() if line.startswith("daemon.max_workers ")]
    assert line.split()[1] == "10"
    assert line.endswith("(it says 20, and waits for a start)")
    assert srvd.ctl("scale", "15").returncode == 2


def test_a_port_taken_by_its_own_former_life_is_free_at_once(starter: Starter) -> None:
    """Connections in TIME_WAIT do not keep the next daemon from its port."""
    port = free_port()
    for _ in range(2):
        srvd = starter.new(config=toml("workers = 1", bind=f"127.0.0.1:{port}")).start()
        with srvd.under_load(2):
            pass
        srvd.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
