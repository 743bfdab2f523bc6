"""Rows of the rival's table: the control socket shared, held open, flooded – and who may use it.

The docstrings quote the row: the scenario – what gunicorn 27.0.1 was seen to do. Attacks on the socket itself are in
test_control_*.py.
"""

from __future__ import annotations

import os
import pwd
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from srvd.errors import EXIT, SrvdError
from tests.conftest import Starter
from tests.support.daemon import Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

AT_ONCE = 1.0


def test_two_daemons_on_one_control_path(starter: Starter, srvd: Srvd) -> None:
    """Two daemons on one control path – silent theft, later unlinked."""
    second = starter.new("--socket", str(srvd.socket))
    done = second.run()
    assert done.returncode == 71
    assert f"pid {srvd.pid}" in done.stderr
    assert srvd.socket.exists()
    assert srvd.status()["daemon"]["pid"] == srvd.pid
    assert srvd.get().startswith("one ")


def test_a_ctl_client_left_connected(srvd: Srvd) -> None:
    """A ctl client left connected – 2 s stall per fork on Python ≥ 3.12, leaked threads."""
    with srvd.client() as idle, socket.socket(socket.AF_UNIX) as silent:
        idle.call("ping")
        silent.connect(str(srvd.socket))
        took = []
        for _ in range(3):
            victim = srvd.kill_worker()
            killed = time.monotonic()
            srvd.wait_serving(2, without=victim)
            took.append(time.monotonic() - killed)
        assert min(took) < AT_ONCE
        began = time.monotonic()
        srvd.call("scale", size=4)
        srvd.call("reload")
        assert time.monotonic() - began < 8  # six forks
        assert len(os.listdir(f"/proc/{srvd.pid}/task")) == 1
        idle.call("ping")


def test_file_descriptors_exhausted_through_ctl(srvd: Srvd) -> None:
    """File descriptors exhausted through ctl – master exits 255."""
    used = srvd.fds()
    with _flood(srvd, 100):
        wait_for(lambda: srvd.fds() > used + 10)
        assert srvd.fds() <= used + 32  # connections are bounded: with 100 of them there is room for workers
        victim = srvd.family()[1]
        victim.kill()
        wait_for(lambda: not victim.is_running())
        wait_for(lambda: len(srvd.family()) == 3)
    wait_for(lambda: srvd.fds() <= used)


def test_file_descriptors_exhausted_by_a_limit(srvd: Srvd) -> None:
    """The same where the limit on open files is so low that even the bounded number of connections reaches it."""
    assert srvd.get().startswith("one ")
    used = srvd.fds()
    resource.prlimit(srvd.pid, resource.RLIMIT_NOFILE, (used + 8, used + 8))
    with _flood(srvd, 100):
        wait_for(lambda: srvd.fds() >= used + 7)
        victim = srvd.family()[1]
        victim.kill()
        assert srvd.get().startswith("one ")
    srvd.wait_serving(2)
    assert srvd.ctl("ping").returncode == 0
    assert srvd.fds() <= used + 1


@contextmanager
def _flood(srvd: Srvd, connections: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(connections):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(srvd.socket))
        yield


# -- who may ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else to ask as them")
def test_who_may_use_the_control_socket(starter: Starter) -> None:
    """Who may use the control socket – file mode only."""
    srvd = starter(config=toml("workers = 1", '[control]\nroles = { operator = ["daemon"], viewer = ["%games"] }'))
    srvd.let_others_in()
    operator, stranger = pwd.getpwnam("daemon").pw_uid, pwd.getpwnam("bin").pw_uid
    assert _code_as(operator, lambda: srvd.call("scale", size=2)) == EXIT.DONE
    assert len(srvd.serving()) == 2
    assert _code_as(operator, lambda: srvd.call("stop")) == EXIT.PERMISSION
    assert _code_as(stranger, lambda: srvd.call("status")) == EXIT.PERMISSION
    assert _code_as(stranger, lambda: srvd.call("scale", size=3)) == EXIT.PERMISSION
    assert len(srvd.serving()) == 2
    done = srvd.call("history")["operations"][0]
    assert (done["kind"], done["actor"]["uid"], done["actor"]["name"]) == ("scale", operator, "daemon")
    srvd.wait_logged("scale web to 2, asked by daemon")  # every change with who asked


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else to ask as them")
def test_a_reload_changes_who_may(starter: Starter) -> None:
    """A role that is given, or taken away, counts from the reload on."""
    srvd = starter(config=toml("workers = 1"))
    srvd.let_others_in()
    viewer = pwd.getpwnam("daemon").pw_uid
    assert _code_as(viewer, srvd.status) == EXIT.PERMISSION
    srvd.configure(toml("workers = 1", '[control]\nroles = { viewer = ["daemon"] }'))
    assert srvd.ctl("reload").returncode == 0
    assert _code_as(viewer, srvd.status) == EXIT.DONE
    srvd.configure(toml("workers = 1"))
    assert srvd.ctl("reload").returncode == 0
    assert _code_as(viewer, srvd.status) == EXIT.PERMISSION


def _code_as(uid: int, call: Callable[[], object]) -> int:
    """What srvctl would exit with: `call` is made by another user, in a fork, since not everyone may run our Python."""
    pid = os.fork()
    if pid == 0:
        code = EXIT.BUG
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            call()
            code = EXIT.DONE
        except SrvdError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
