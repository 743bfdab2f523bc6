"""Claims about processes that an application has started and that outlive the whole family: the next start names them.

They have every descriptor of the worker that started them: its listener, and the lock by which a family stays together.
"""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.adoption import is_written, state
from tests.support.daemon import BOOT, Srvd, free_port, toml
from tests.support.users import own_name
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

HELPER = """
import os, subprocess
def helper():
    '''A program in the background, with all descriptors; its pid. Not by os.fork, in whose child a worker lets go.'''
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            os.set_inheritable(fd, True)
        except OSError:  # the one by which the folder was read
            pass
    command = ["setsid", "sh", "-c", "sleep 777 >/dev/null & echo $!"]
    return subprocess.run(command, close_fds=False, stdout=subprocess.PIPE, text=True).stdout
inner = app
def app(environ, start_response):
    if environ["PATH_INFO"] != "/helper":
        return inner(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [helper().encode()]
"""


@pytest.fixture
def left(starter: Starter) -> Iterator[tuple[Srvd, psutil.Process]]:
    """A family that was killed, all of it, and the helper that is left."""
    srvd = starter(config=toml("workers = 1", bind=f"127.0.0.1:{free_port()}"), code=apps.good() + HELPER)
    wait_for(lambda: is_written(srvd))
    helper = psutil.Process(int(srvd.get("/helper")))
    wait_for(lambda: helper.name() == "sleep")
    family = [one for one in srvd.family() if one != helper]
    srvd.die()
    for one in family:
        one.kill()
    psutil.wait_procs(family, BOOT)
    yield srvd, helper
    helper.kill()


def named(helper: psutil.Process) -> str:
    return f"pid {helper.pid} (sleep 777, user {own_name('{uid}')})"


def test_a_helper_that_has_the_port_is_named_by_the_next_start(left: tuple[Srvd, psutil.Process]) -> None:
    srvd, helper = left
    done = srvd.run()
    assert done.returncode == 71
    assert f"{named(helper)} has it" in done.stderr


def test_a_helper_that_has_the_lock_of_the_family_is_named_and_left_alone(left: tuple[Srvd, psutil.Process]) -> None:
    srvd, helper = left
    srvd.configure(toml("workers = 1"))  # another port
    srvd.start()
    srvd.wait_logged(f"left alone: {named(helper)}, which an application of a daemon that died has started")
    assert helper.is_running()
    assert srvd.get().startswith("one ")


def test_without_a_state_a_start_names_the_helper_for_which_it_waits(left: tuple[Srvd, psutil.Process]) -> None:
    srvd, helper = left
    state(srvd).unlink()
    srvd.configure(toml("workers = 1"))
    srvd.start(ready=False)
    srvd.wait_logged(f"waiting for {named(helper)}: a daemon that died has left them")
    helper.kill()
    wait_for(srvd.is_ready, BOOT)


def test_a_start_that_has_waited_in_vain_says_what_to_end(left: tuple[Srvd, psutil.Process]) -> None:
    srvd, helper = left
    state(srvd).unlink()
    srvd.configure(toml("workers = 1"))
    done = srvd.run(timeout=120)
    assert done.returncode == 71
    assert f"{named(helper)} has its lock; workers leave when their requests are over, and what an" in done.stderr
