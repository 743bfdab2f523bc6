"""The daemon dies, stands still, or is kept from seeing and writing: its workers serve on, and it goes on as it can.

What else a successor takes over is in system/test_adoption.py, what upgrades do in system/test_upgrade.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from srvd.errors import SrvdError
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, is_alive, toml
from tests.support.fault import control_group, full_disk, no_more_files, small_disk, under_load
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


def _state(srvd: Srvd) -> Path:
    return srvd.socket.with_name(f"{srvd.socket.name}.state")


def _wait_written(srvd: Srvd) -> None:
    """Until the state has all who serve."""
    names = [name.encode() for name in srvd.names()]
    wait_for(lambda: _state(srvd).exists() and all(name in _state(srvd).read_bytes() for name in names))


# -- it dies ------------------------------------------------------------------------------------------------------


def test_a_daemon_killed_loses_no_request_and_the_next_one_goes_on_with_its_workers(srvd: Srvd) -> None:
    with under_load(srvd, "SIGKILL of the daemon, and a start") as fault:
        _wait_written(srvd)
        before = srvd.names()
        fault.strikes()
        srvd.die()
        srvd.start()
        fault.repaired(lambda: srvd.names() == before)
        victim = fault.kills()  # the new one does all that a daemon does
        fault.replaced(victim, 2)
        assert srvd.call("reload")["operation"]["state"] == "done"
    assert fault.lost() == []
    assert "killed by signal 9" in fault.why(victim)
    # The reload is done when its former workers accept no more; they may still be in their last request.
    wait_for(lambda: {death["cause"] for death in srvd.deaths()} == {"signal", "retired"})
    srvd.wait_logged("the daemon before this one has died; its zygotes, workers and listeners are adopted")


def test_a_worker_killed_while_there_is_no_daemon_costs_its_own_requests_and_the_next_one_knows(srvd: Srvd) -> None:
    with under_load(srvd, "SIGKILL of the daemon and then of a worker, and a start") as fault:
        _wait_written(srvd)
        victim = fault.dooms()
        fault.strikes()
        srvd.die()
        os.kill(victim["pid"], signal.SIGKILL)
        fault.load.more()  # by the other worker
        srvd.start()
        fault.replaced(victim["id"], 2)
    assert fault.lost() == []
    assert "killed by signal 9" in fault.why(victim["id"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a daemon whose pool has another user")
def test_a_daemon_killed_while_the_application_of_another_user_loads_leaves_nothing(starter: Starter) -> None:
    """A change of user clears PR_SET_PDEATHSIG, prctl(2), so it is set afterwards. Nobody serves yet, so no request can
    be lost, and nobody is left to be asked why.
    """
    user = 60_000 + os.getpid() % 5_000
    config = toml(f'workers = 1\nuser = "{user}"\ngroup = "{user}"')
    srvd = starter.new(config=config, code=apps.BROKEN["hangs at import"])
    srvd.let_others_in()
    srvd.start(ready=False)
    srvd.wait_logged("control socket")
    zygote = wait_for(lambda: [one for one in srvd.family() if one.uids().real == user])[0]
    srvd.die()
    wait_for(lambda: not is_alive(zygote))
    srvd.socket.unlink()


def test_a_start_that_has_no_room_for_its_pidfile_leaves_the_workers_to_the_next_start(starter: Starter) -> None:
    """The daemon was killed, and the disk is full: the start is refused. Nobody who serves is harmed by that."""
    with small_disk(starter.folder / "disk") as disk:
        srvd = starter(config=toml("workers = 2", f'[daemon]\npidfile = "{disk}/srvd.pid"'))
        with under_load(srvd, "SIGKILL of the daemon, a start without room, and one with room") as fault:
            _wait_written(srvd)
            before = srvd.names()
            srvd.die()
            with full_disk(disk):
                failed = srvd.run()
                assert failed.returncode == 71
                assert f"write the pidfile {disk}/srvd.pid: No space left on device" in failed.stderr
                fault.load.more()
            fault.strikes()
            srvd.start()
            fault.repaired(lambda: srvd.names() == before)
            assert (disk / "srvd.pid").read_text() == f"{srvd.pid}\n"
        assert fault.lost() == []
        assert "no worker has died" in fault.why()
        assert srvd.stop() == 0


# -- it is short of something -------------------------------------------------------------------------------------


@pytest.mark.parametrize("short_of", ["processes", "descriptors"])
def test_an_upgrade_that_cannot_be_made_changes_nothing_and_says_why(srvd: Srvd, short_of: str) -> None:
    """EAGAIN, EMFILE: the new program cannot be asked to check itself. When it can, the upgrade is made."""
    reason = {"processes": "Resource temporarily unavailable", "descriptors": "Too many open files"}[short_of]
    with under_load(srvd, f"an upgrade without {short_of}, until the next one is made") as fault, ExitStack() as stack:
        before = srvd.names()
        client = stack.enter_context(srvd.client())
        with ExitStack() as shortage:
            if short_of == "processes":
                group = shortage.enter_context(control_group("pids.max", 1))
                (group / "cgroup.procs").write_text(str(srvd.pid))
            else:
                shortage.enter_context(no_more_files(srvd.pid))
            with pytest.raises(SrvdError, match=reason):
                client.call("upgrade", {})
            fault.load.more()
        fault.strikes()
        assert srvd.ctl("upgrade").returncode == 0
        fault.repaired(lambda: srvd.pool()["state"] == "ready")
        assert srvd.names() == before
    assert fault.lost() == []
    assert "no worker has died" in fault.why()
    assert "a bug in srvd" not in srvd.logged()


# -- it stands still ----------------------------------------------------------------------------------------------


def test_a_stopped_daemon_holds_nobody_up_and_repairs_when_it_goes_on(srvd: Srvd) -> None:
    """SIGSTOP, a debugger, a slow disk. systemd's watchdog would end it; here somebody continues it."""
    with under_load(srvd, "a worker killed while the daemon is stopped, after that goes on") as fault:
        victim = fault.dooms()
        srvd.signal(signal.SIGSTOP)
        os.kill(victim["pid"], signal.SIGKILL)
        fault.load.more(200)
        fault.strikes()
        srvd.signal(signal.SIGCONT)
        fault.replaced(victim["id"], 2)
    assert fault.lost() == []
    assert "killed by signal 9" in fault.why(victim["id"])


# -- it cannot see, or write --------------------------------------------------------------------------------------

ONLY_PROCESSES = ("unshare", "--mount", "--propagation=private", "sh", "-c",
                  'mount -t proc -o subset=pid proc /proc && exec "$0" "$@"')  # fmt: skip
"""What systemd's ProcSubset=pid does: proc(5), subset=pid. /proc has processes, and nothing else."""


def _why_not() -> str:
    done = subprocess.run([*ONLY_PROCESSES, "true"], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


def test_without_the_figures_of_the_system_everything_goes_on(starter: Starter) -> None:
    """psutil raises FileNotFoundError, which is none of its own errors: what a reload would take is unknown then."""
    reason = _why_not()
    if reason:
        pytest.skip(f"/proc cannot be mounted with subset=pid here: {reason}")
    srvd = starter.new(config=toml("workers = 2"))
    srvd.command = [*ONLY_PROCESSES, *srvd.command]
    srvd.start()
    with under_load(srvd, "a worker killed under ProcSubset=pid") as fault:
        assert not Path(f"/proc/{srvd.pid}/root/proc/meminfo").exists()
        victim = fault.kills()
        fault.replaced(victim, 2)
        assert srvd.call("reload")["operation"]["state"] == "done"
        workers = [one for one in srvd.call("workers")["workers"] if one["id"] in srvd.names()]
        assert all(worker["rss_bytes"] > 1 << 20 for worker in workers)
        _wait_written(srvd)
        before = srvd.names()
        srvd.die()
        srvd.start()  # in another mount namespace, as after a restart by systemd
        fault.repaired(lambda: srvd.names() == before)
    assert fault.lost() == []
    assert "killed by signal 9" in fault.why(victim)
    assert "Traceback" not in srvd.logged()


def test_a_full_disk_under_the_state_costs_nothing_while_the_daemon_lives_and_is_told(starter: Starter) -> None:
    """Nobody could adopt the workers then, so it is said; and it is written again when there is room."""
    with small_disk(starter.folder / "disk") as disk:
        socket = disk / "control.sock"
        srvd = starter.new("--socket", str(socket), config=toml("workers = 2"))
        srvd.socket = socket
        srvd.start()
        with under_load(srvd, "a worker killed while there is no room for the state") as fault:
            _wait_written(srvd)
            with full_disk(disk):
                victim = fault.kills()
                fault.replaced(victim, 2)
                assert srvd.call("reload")["operation"]["state"] == "done"
                srvd.wait_logged("No space left on device")
            before = srvd.names()
            assert srvd.call("scale", size=3)["operation"]["state"] == "done"
            _wait_written(srvd)
            before = srvd.names()
            fault.strikes()
            srvd.die()
            srvd.start()
            fault.repaired(lambda: srvd.names() == before)
        assert fault.lost() == []
        assert "killed by signal 9" in fault.why(victim)
        assert srvd.stop() == 0
