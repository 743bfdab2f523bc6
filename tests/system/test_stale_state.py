"""Claims about adoptions that begin with less than all: a state that is behind, members who die or come late, few fds.

What an adoption is when all goes well is in test_adoption.py.
"""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from srvd.daemon.recovery import envelope
from srvd.daemon.recovery.state_file import unseal
from srvd.daemon.state import handover
from srvd.errors import BadArgs
from tests.conftest import Starter
from tests.support import apps
from tests.support.adoption import die, die_with_zygote, is_known, is_whole, is_written, pids, state, zygote_of
from tests.support.apps import HELD
from tests.support.daemon import BOOT, Srvd, free_port, is_alive, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


def set_back(srvd: Srvd, former: bytes) -> None:
    """Leaves the state of a moment ago to the next daemon."""
    state(srvd).write_bytes(former)


def test_a_worker_that_booted_after_the_last_writing_obeys(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\npreload = "off"'), code=apps.good("one", HELD))
    (srvd.folder / "held").touch()
    srvd.kill_worker("web/1#1")
    pid = wait_for(lambda: [one["pid"] for one in srvd.pool()["workers"] if one["state"] == "booting" and one["pid"]])
    wait_for(lambda: f"pid={pid[0]}," in told(srvd))
    former = state(srvd).read_bytes()
    (srvd.folder / "held").unlink()
    srvd.wait_serving(2)
    with srvd.under_load(clients=4) as load:
        before = die(srvd)
        set_back(srvd, former)
        srvd.start()
        assert pids(srvd) == before
        srvd.call("recycle", worker="web/1#3")
        load.more()
    assert wait_for(lambda: srvd.deaths(worker="web/1#3"))[0]["exit_code"] == 0
    assert load.failed == []


def told(srvd: Srvd) -> str:
    """What the state says, for people."""
    return repr(handover.read(envelope.unpack(unseal(state(srvd).read_bytes()).data).state))


@pytest.mark.parametrize("kept", ["old state", "no state"])
def test_if_nobody_who_is_known_lives_the_others_are_sent_away(starter: Starter, kept: str) -> None:
    config = toml("workers = 2\nbake = 0\nrollback_window = 0", bind=f"127.0.0.1:{free_port()}")
    srvd = starter(config=config)
    wait_for(lambda: is_written(srvd))
    former = state(srvd).read_bytes()
    old = {process.pid for process in srvd.family()}
    with srvd.under_load(clients=4) as load:
        srvd.call("reload")
        wait_for(lambda: not old & {process.pid for process in srvd.family()}, BOOT)
        die(srvd)
        left = list(srvd.adopted)
        if kept == "old state":
            set_back(srvd, former)
        else:
            state(srvd).unlink()
        srvd.start()
        load.more()
        wait_for(lambda: not [one for one in left if is_alive(one)], BOOT)
        is_whole(srvd)
    assert load.failed == []


def test_a_start_survives_that_the_last_one_dies_while_it_is_waited_for(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1", bind=f"127.0.0.1:{free_port()}"))
    (last,) = die_with_zygote(srvd).values()
    os.kill(last, signal.SIGSTOP)
    srvd.start(ready=False)
    srvd.wait_logged("waiting for 1 busy")
    os.kill(last, signal.SIGKILL)
    wait_for(srvd.is_ready, BOOT)
    assert srvd.get().startswith("one ")


def test_a_low_limit_on_open_files_keeps_nobody_from_being_adopted(starter: Starter) -> None:
    srvd = starter.new("--workers", "16")
    srvd.command = ["prlimit", "--nofile=64:4096", *srvd.command]
    srvd.start()
    with srvd.under_load(clients=4) as load:
        before = die(srvd)
        srvd.start()
        assert pids(srvd) == before
        is_whole(srvd)
    assert load.failed == []
    assert "open files" not in srvd.logged()


WAITS = """
import os, time
inner = app
def app(environ, start_response):
    while environ["PATH_INFO"] == "/wait" and os.path.exists("busy"):
        time.sleep(0.02)
    return inner(environ, start_response)
"""


def test_who_is_late_also_finds_the_program_that_an_upgrade_brought(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2\norphan_timeout = 600"), code=apps.good() + WAITS)
    (srvd.folder / "busy").touch()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/wait")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        before = die(srvd)
        srvd.start()
        assert srvd.ctl("upgrade").returncode == 0
        (srvd.folder / "busy").unlink()
        holder = slow.result().split()[1]
    srvd.call("recycle", worker=holder)
    assert wait_for(lambda: srvd.deaths(worker=holder))[0]["exit_code"] == 0
    assert pids(srvd).items() >= {(name, pid) for name, pid in before.items() if name != holder}


def test_an_order_that_was_answered_is_known_to_the_next_daemon(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"), code=apps.good("one", HELD))
    (srvd.folder / "held").touch()
    for method in ("reload", "recycle", "pause", "upgrade"):
        assert is_known(srvd, srvd.order(method))
    (srvd.folder / "held").unlink()


def test_a_zygote_that_does_not_come_is_replaced(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"))
    with srvd.under_load(clients=4) as load:
        zygote = zygote_of(srvd)
        zygote.suspend()
        before = die(srvd)
        srvd.start()
        assert pids(srvd) == before
        wait_for(lambda: not is_alive(zygote), BOOT)
        wait_for(lambda: {worker.split("#")[0] for worker in srvd.names()} == {"web/2"}, BOOT)
        is_whole(srvd)
    assert load.failed == []


def limited(workers: int, limit: int) -> str:
    return toml(f"workers = {workers}", f"[daemon]\nmax_workers = {limit}")


def test_a_lower_limit_on_workers_is_in_force_after_an_adoption(starter: Starter) -> None:
    srvd = starter(config=limited(2, 4))
    srvd.call("scale", size=4)
    before = die(srvd)
    srvd.configure(limited(2, 3))
    srvd.start()
    assert pids(srvd) == before
    srvd.wait_logged("4 workers run by orders that were given before")
    srvd.call("scale", size=3)
    with pytest.raises(BadArgs, match="0 to 3"):
        srvd.call("scale", size=4)


def test_a_higher_limit_on_workers_than_the_scoreboard_has_room_for_is_told(starter: Starter) -> None:
    srvd = starter(config=limited(2, 4))
    die(srvd)
    srvd.configure(limited(2, 400))
    srvd.start()
    srvd.wait_logged("max_workers: 4 stays in force, 400 was not taken over")
    with pytest.raises(BadArgs, match="0 to 4"):
        srvd.call("scale", size=5)
    shown = {one["key"]: one["value"] for one in srvd.call("config")["settings"]}
    assert shown["daemon.max_workers"] == 4
    srvd.call("reload")
    die(srvd)
    srvd.configure(limited(2, 4))
    srvd.start()
    srvd.stop()
    srvd.configure(limited(2, 400))
    srvd.start()
    srvd.call("scale", size=5)
    assert len(srvd.serving()) == 5
