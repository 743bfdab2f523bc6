"""Claims about the upgrade in place: another program is the same daemon, and nobody outside notices."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from srvd.client.reconnecting import RECONNECT
from srvd.daemon.upgrade.replace import TAKEOVER_SECONDS
from srvd.errors import EXIT, Conflict, ShuttingDown, SrvdError
from srvd.wire import links
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BIN, Srvd, toml
from tests.support.srvd_versions import Versions
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

OTHER_PROTOCOL = {"wire/links.py": (f"PROTOCOL = {links.PROTOCOL}\n", f"PROTOCOL = {links.PROTOCOL + 1}\n")}

BROKEN_AT_IMPORT = {
    "daemon/control/backend.py": ("class DaemonBackend:", "raise RuntimeError('not finished')\nclass DaemonBackend:")
}
"""What the self-check finds."""

AFTER_EXEC = "import sys\nif '-c' in sys.orig_argv[:4]:\n    raise RuntimeError('no luck')\n"
"""What no self-check finds: it comes true only in the place of the daemon."""

FAILS = "        raise OSError('no luck')\n"
BROKEN_IN_PLACE = {
    "by ending the process": {"daemon/entry/resume.py": ("    note = int", "    sys.exit('no luck')\n    note = int")},
    "before it is imported": {"daemon/entry/resume.py": ("__all__ =", f"{AFTER_EXEC}__all__ =")},
    "when it has taken the listeners": {
        "daemon/children/processes.py": ("        self._revisions.restore(found.revisions)\n", FAILS),
    },
    "when all is there": {
        "daemon/entry/resume.py": ("    daemon.attach()\n", "    raise OSError('no luck')\n"),
    },
}
"""When a new program fails after it was run, and how."""


HELD = "import os, time\nwhile os.path.exists('held'): time.sleep(0.02)\n"
"""In front of an application: it is not imported before the file is gone."""


def hold(srvd: Srvd) -> Path:
    """To be removed, so that what is `HELD` goes on."""
    held = srvd.folder / "held"
    held.touch()
    return held


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    made = Versions(tmp_path / "versions")
    made.install("1.0")
    return made


@pytest.fixture
def old(starter: Starter, versions: Versions) -> Srvd:
    """A daemon of version 1.0."""
    return starter("--workers", "2", env=versions.env)


def pids(srvd: Srvd) -> dict[str, set[int]]:
    """Whoever lives, by role."""
    return {
        "daemon": {srvd.pid},
        "zygotes": {zygote.pid for zygote in srvd.zygotes()},
        "workers": {worker["pid"] for pool in srvd.status()["pools"] for worker in pool["workers"]},
    }


def version(srvd: Srvd) -> str:
    return str(srvd.status()["daemon"]["version"])


def upgraded(srvd: Srvd) -> dict[str, Any]:
    """The operation of an upgrade that must succeed, by srvctl."""
    done: dict[str, Any] = srvd.ctl_json("upgrade")["operation"]
    assert done["state"] == "done"
    return done


# -- what is kept -------------------------------------------------------------------------------------------------


def test_an_upgrade_keeps_every_process_and_tells_both_versions(old: Srvd, versions: Versions) -> None:
    before, began = pids(old), old.status()["daemon"]["uptime_s"]
    address = old.address()
    versions.install("1.1")
    done = old.ctl("upgrade")
    assert done.returncode == 0, done.stderr
    assert "srvd 1.1 runs, 1.0 did before; 2 workers and all listeners were kept" in done.stdout
    assert version(old) == "1.1"
    assert pids(old) == before
    assert old.status()["daemon"]["uptime_s"] >= began
    old._addresses.clear()
    assert old.address() == address
    assert old.get().startswith("one ")


def test_the_new_program_does_all_that_a_daemon_does(old: Srvd, versions: Versions) -> None:
    versions.install("1.1")
    upgraded(old)
    victim = old.kill_worker()
    old.wait_serving(2, without=victim)
    assert old.deaths()[0]["worker"] == victim
    assert old.ctl("scale", "4").returncode == 0
    old.good("two")
    assert old.ctl("reload").returncode == 0
    assert old.get().startswith("two ")
    assert old.ctl("rollback").returncode == 0
    assert old.get().startswith("one ")


def test_what_was_known_is_known(old: Srvd, versions: Versions) -> None:
    assert old.ctl("scale", "3").returncode == 0
    victim = old.kill_worker()
    old.wait_serving(3, without=victim)
    old.good("two")
    assert old.ctl("reload").returncode == 0
    before = old.call("history")["operations"]
    deaths = old.deaths()
    seen = [event["seq"] for event in events(old)]
    versions.install("1.1")
    upgraded(old)
    assert without_times(old.call("history")["operations"][1:]) == without_times(before)
    assert [death["worker"] for death in old.deaths()] == [death["worker"] for death in deaths]
    assert [event["seq"] for event in events(old)][: len(seen)] == seen
    assert old.pool()["override"] == 3
    assert old.pool()["former"] == 1
    assert old.ctl("rollback").returncode == 0
    assert old.get().startswith("one ")


def events(srvd: Srvd) -> list[dict[str, Any]]:
    with srvd.client() as client:
        return list(client.watch(follow=False))


def without_times(operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if not key.endswith("_at")} for one in operations]


def open_files(srvd: Srvd) -> dict[int, int]:
    """How many descriptors each of its processes has, but for clients' connections."""
    return {
        pid: sum("socket:" not in name for name in fd_names(pid).values())
        for role in pids(srvd).values()
        for pid in role
    }


@pytest.mark.long
def test_twenty_upgrades_under_load_lose_no_request_and_leak_nothing(old: Srvd, versions: Versions) -> None:
    versions.install("1.1")
    versions.install("1.2", BROKEN_IN_PLACE["when all is there"])
    before, files, fds = pids(old), open_files(old), old.fds()
    with old.under_load(8) as load:
        for number in range(20):
            versions.use("1.0" if number % 2 else "1.1")
            upgraded(old)
            load.more(10)
        for _ in range(2):
            versions.use("1.2")
            assert old.ctl("upgrade").returncode == 1
    assert load.failed == []
    assert pids(old) == before
    wait_for(lambda: open_files(old) == files, within=10)
    wait_for(lambda: old.fds() <= fds, within=10)


def test_upgrades_while_stacks_are_dumped_under_load_lose_neither(old: Srvd) -> None:
    """Whoever asked the former program asks the new one, and a stack that was half written is written anew."""
    answers: list[subprocess.CompletedProcess[str]] = []
    over = Event()

    def ask() -> None:
        while not over.wait(0.02):
            answers.append(old.ctl("--json", "dump"))

    with old.under_load(4) as load, ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            for _ in range(4):
                upgraded(old)
                load.more(10)
        finally:
            over.set()
        assert [one.exception(60) for one in asking] == [None, None]
    assert load.failed == []
    assert [one.stderr for one in answers if one.returncode] == []
    told = [process for one in answers for process in json.loads(one.stdout)["processes"]]
    assert len(told) == 2 * len(answers) > 0
    assert [one["problem"] for one in told if one["problem"] or not one["threads"]] == []


def test_it_keeps_sockets_that_rest_and_those_with_a_path(starter: Starter, versions: Versions, tmp_path: Path) -> None:
    path, other = tmp_path / "web.sock", tmp_path / "other.sock"
    srvd = starter(config=toml(bind=f"unix:{path}"), env=versions.env)
    srvd.configure(toml(bind=f"unix:{other}"))
    assert srvd.ctl("reload").returncode == 0
    assert not path.exists()
    upgraded(srvd)
    assert srvd.ctl("rollback").returncode == 0
    assert path.is_socket()
    assert not other.exists()
    assert srvd.stop() == 0
    assert not path.exists()
    srvd.process = None


def test_its_own_program_may_be_upgraded_to(srvd: Srvd) -> None:
    upgraded(srvd)
    assert srvd.get().startswith("one ")


# -- who notices --------------------------------------------------------------------------------------------------


def test_whoever_watches_goes_on_watching(old: Srvd, versions: Versions) -> None:
    with old.client() as client:
        watching = client.watch(since=-1)
        with ThreadPoolExecutor() as pool:
            rest = pool.submit(list, watching)
            old.call("scale", size=3)
            old.order("upgrade")
            with pytest.raises(ShuttingDown, match="connect again") as goodbye:
                rest.result(30)
    assert goodbye.value.detail["reason"] == "upgrade"
    wait_for(lambda: old.call("history")["operations"][0]["state"] == "done")


def test_srvctl_sees_each_event_once_over_an_upgrade(old: Srvd) -> None:
    with old.client() as client:
        instance = client.hello.instance
    lines: list[str] = []
    command = [str(BIN / "srvctl"), "-s", str(old.socket), "events", "-f", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=old.env) as follower:
        assert follower.stdout is not None
        upgraded(old)
        old.call("scale", size=3)
        for line in follower.stdout:
            lines.append(line)
            if "scale web to 3: done" in line:
                break
        follower.send_signal(signal.SIGINT)
        follower.stdout.read()
    seen = [json.loads(line)["seq"] for line in lines]
    assert seen == list(range(1, len(seen) + 1))
    with old.client() as client:
        assert client.hello.instance == instance


def test_usr2_does_the_same_and_the_log_has_the_verdict(old: Srvd, versions: Versions) -> None:
    versions.install("1.1")
    old.signal(signal.SIGUSR2)
    old.wait_logged("upgrade: done: srvd 1.1 runs, 1.0 did before")
    assert version(old) == "1.1"
    old.wait_logged("asked by signal SIGUSR2")


# -- what is under way --------------------------------------------------------------------------------------------


def test_a_reload_under_way_goes_on_and_its_asker_is_answered(old: Srvd, versions: Versions) -> None:
    old.good("two", before=HELD)
    held = hold(old)
    versions.install("1.1")
    with ThreadPoolExecutor() as pool, old.under_load(4) as load:
        reload = pool.submit(old.ctl, "reload")
        wait_for(lambda: old.status()["operations"])
        upgraded(old)
        assert version(old) == "1.1"
        assert [op["kind"] for op in old.status()["operations"]] == ["reload"]
        held.unlink()
        done = reload.result(60)
    assert done.returncode == 0, done.stderr
    assert "two" in load.releases
    assert load.failed == []


def test_a_reload_that_fails_after_an_upgrade_tells_its_asker_why(old: Srvd, versions: Versions) -> None:
    old.deploy(HELD + apps.BROKEN["raises at import"])
    held = hold(old)
    with ThreadPoolExecutor() as pool:
        reload = pool.submit(old.ctl, "reload")
        wait_for(lambda: old.status()["operations"])
        upgraded(old)
        held.unlink()
        done = reload.result(60)
    assert done.returncode == 1
    assert "RuntimeError: the deploy is broken" in done.stderr
    assert old.get().startswith("one ")


def test_workers_that_boot_and_drain_are_carried(starter: Starter, versions: Versions) -> None:
    srvd = starter(config=toml('workers = 2\npreload = "off"\ndrain_timeout = "60s"'), env=versions.env)
    srvd.good("two", before=HELD)
    held = hold(srvd)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/until/over")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        op = srvd.order("recycle")
        wait_for(lambda: "booting" in {worker["state"] for worker in srvd.pool()["workers"]})
        upgraded(srvd)
        held.unlink()
        wait_for(lambda: "draining" in {worker["state"] for worker in srvd.pool()["workers"]})
        upgraded(srvd)
        (srvd.folder / "over").touch()
        assert slow.result(60).startswith("one ")
    assert srvd.wait_operation(op, "done")["result"]["recycled"] == 2
    srvd.wait_serving(2)


def test_a_worker_that_dies_during_the_upgrade_is_replaced_and_accounted_for(old: Srvd, versions: Versions) -> None:
    versions.install(
        "1.1", {"daemon/entry/resume.py": ("    note = int", "    import time; time.sleep(1)\n    note = int")}
    )
    victim = next(iter(old.serving()))
    old.order("upgrade")
    wait_for(lambda: any("srvd-takeover" in name for name in fd_names(old.pid).values()))
    os.kill(victim["pid"], signal.SIGKILL)
    old.wait_serving(2, without=victim["id"])
    assert (old.deaths()[0]["worker"], old.deaths()[0]["signal"]) == (victim["id"], 9)


def fd_names(pid: int) -> dict[str, str]:
    """What each descriptor of a process is."""
    names = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            names[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
    return names


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_check_changes_nothing_and_says_the_version(old: Srvd, versions: Versions) -> None:
    versions.install("1.1")
    done = old.ctl("upgrade", "--check")
    assert done.returncode == 0
    assert "srvd 1.1 can take over from 1.0" in done.stdout
    assert version(old) == "1.0"


@pytest.mark.parametrize("words", [["upgrade"], ["upgrade", "--check"]], ids=" ".join)
def test_a_program_that_cannot_be_imported_is_not_run(old: Srvd, versions: Versions, words: list[str]) -> None:
    before = pids(old)
    versions.install("1.1", BROKEN_AT_IMPORT)
    with old.under_load(4) as load:
        done = old.ctl(*words)
    assert done.returncode == 1
    assert "srvd 1.1 cannot take over: import srvd." in done.stderr
    assert "RuntimeError: not finished" in done.stderr
    assert "nothing was changed" in done.stderr
    assert (version(old), pids(old), load.failed) == ("1.0", before, [])


def test_a_program_that_does_not_know_the_state_is_not_run(old: Srvd, versions: Versions) -> None:
    versions.install("1.1", {"core/state/snapshot.py": ("VERSION = 1\n", "VERSION = 7\n")})
    done = old.ctl("upgrade")
    assert done.returncode == 1
    assert "it is of version 1, this program reads version 7" in done.stderr
    assert version(old) == "1.0"


def test_a_program_that_speaks_otherwise_to_workers_is_not_run(old: Srvd, versions: Versions) -> None:
    versions.install("1.1", OTHER_PROTOCOL)
    done = old.ctl("upgrade")
    assert done.returncode == 1
    assert "this upgrade needs a restart" in done.stderr


def test_a_configuration_that_is_wrong_ends_the_upgrade(starter: Starter, versions: Versions) -> None:
    srvd = starter(config=toml("workers = 1"), env=versions.env)
    srvd.configure(toml("wokers = 1"))
    done = srvd.ctl("upgrade")
    assert done.returncode == 78
    assert "did you mean workers?" in done.stderr
    assert done.stderr.count("nothing was changed") == 1
    assert srvd.get().startswith("one ")


def test_no_program_at_all_ends_the_upgrade(starter: Starter, versions: Versions, tmp_path: Path) -> None:
    srvd = starter.new("--workers", "1", env=versions.env)
    script = tmp_path / "srvd"
    script.write_text(Path(srvd.command[0]).read_text())
    script.chmod(0o755)
    srvd.command[0] = str(script)
    srvd.start()
    script.unlink()
    done = srvd.ctl("upgrade")
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
    script.write_text("#!/bin/sh\necho Traceback >&2\necho ImportError: no msgpack >&2\nexit 3\n")
    script.chmod(0o755)
    assert "gave no answer: ImportError: no msgpack; nothing was changed" in srvd.ctl("upgrade").stderr
    assert srvd.get().startswith("one ")


@pytest.mark.parametrize(
    "when",
    [
        "by ending the process",
        pytest.param("before it is imported", marks=pytest.mark.long),
        pytest.param("when it has taken the listeners", marks=pytest.mark.long),
        "when all is there",
    ],
)
def test_the_former_program_goes_on_when_the_new_one_fails_in_its_place(
    old: Srvd, versions: Versions, when: str
) -> None:
    before = pids(old)
    versions.install("1.1", BROKEN_IN_PLACE[when])
    with old.under_load(4) as load:
        done = old.ctl("upgrade")
        load.more(50)
    assert done.returncode == 1
    assert "the new program could not take over" in done.stderr
    assert "srvd 1.0 goes on" in done.stderr
    assert "no luck" in done.stderr
    assert (version(old), pids(old), load.failed) == ("1.0", before, [])
    failed = old.call("history")["operations"][0]
    assert (failed["state"], failed["error"]["code"]) == ("failed", "rolled_back")


def test_the_former_program_goes_on_even_if_its_files_were_replaced(old: Srvd, versions: Versions) -> None:
    """As an installer does it: the new version is where the former one was, and nothing is left of that."""
    wait_for(lambda: kept_size(old) > 0)
    before = pids(old)
    broken = BROKEN_IN_PLACE["when it has taken the listeners"]
    versions.edit("1.0", {"__init__.py": ('"1.0"', '"1.1"'), **broken})
    for _ in range(2):  # and once more by the program that came back
        with old.under_load(4) as load:
            done = old.ctl("upgrade")
        assert done.returncode == 1
        assert "srvd 1.0 goes on" in done.stderr
        assert (version(old), pids(old), load.failed) == ("1.0", before, [])
    versions.edit("1.0", {name: (new, former) for name, (former, new) in broken.items()})
    upgraded(old)
    assert version(old) == "1.1"
    victim = old.kill_worker()
    old.wait_serving(2, without=victim)


def kept_size(srvd: Srvd) -> int:
    names = fd_names(srvd.pid)
    return max(os.stat(f"/proc/{srvd.pid}/fd/{fd}").st_size for fd, name in names.items() if "srvd-program" in name)


HANGS = "    import time\n    try:\n        time.sleep(3600)\n    except OSError:\n        time.sleep(3600)\n"
"""And suppresses what should end it."""


@pytest.mark.parametrize(
    ("limit", "variables"),
    [
        pytest.param(2, {}, marks=pytest.mark.long, id="alone"),
        pytest.param(3, {"WATCHDOG_USEC": "5000000"}, id="watched"),
    ],
)
def test_the_former_program_goes_on_when_the_new_one_hangs_in_its_place(
    starter: Starter, tmp_path: Path, limit: int, variables: dict[str, str]
) -> None:
    """With a watchdog, before that bites."""
    versions = Versions(tmp_path / "versions")
    shorter = (
        {} if variables else {"daemon/upgrade/replace.py": ("TAKEOVER_SECONDS = 30", f"TAKEOVER_SECONDS = {limit}")}
    )
    versions.install("1.0", shorter)
    srvd = starter("--workers", "2", env=versions.env | variables)
    begin = "    note = int"
    versions.install("1.1", {"daemon/entry/resume.py": (begin, f"{HANGS}{begin}")})
    with srvd.under_load(4) as load:
        done = srvd.ctl("upgrade")
    assert done.returncode == 1
    assert f"it had not taken over within {limit} s" in done.stderr
    assert (version(srvd), load.failed) == ("1.0", [])


def test_an_exec_that_the_kernel_refuses_changes_nothing(old: Srvd, versions: Versions) -> None:
    before = pids(old)
    versions.install("1.1", {"daemon/entry/self_check.py": ('"python": program.interpreter', '"python": "/nowhere"')})
    with old.under_load(4) as load:
        done = old.ctl("upgrade")
    assert done.returncode == 1
    assert "No such file or directory: '/nowhere'; this one goes on" in done.stderr
    assert (version(old), pids(old), load.failed) == ("1.0", before, [])
    old.signal(signal.SIGTERM)  # signals are heard again
    assert old.wait() == 0


def test_a_zygote_that_speaks_otherwise_than_the_daemon_is_not_taken(old: Srvd, versions: Versions) -> None:
    """As after an installer, before the upgrade: who is started then is of the new version."""
    before = pids(old)["workers"]
    versions.edit("1.0", OTHER_PROTOCOL)
    done = old.ctl("reload")
    assert done.returncode == 1
    assert f"the daemon speaks version {links.PROTOCOL}, this zygote {links.PROTOCOL + 1}" in done.stderr
    assert "`srvctl upgrade` if srvd was replaced" in done.stderr
    assert pids(old)["workers"] == before
    assert old.get().startswith("one ")


def test_srvctl_waits_for_the_verdict_longer_than_a_program_may_hang() -> None:
    assert RECONNECT >= 2 * TAKEOVER_SECONDS


def test_the_former_program_goes_on_without_the_interpreter_that_it_had(
    starter: Starter, versions: Versions, tmp_path: Path
) -> None:
    """Each release has a virtual environment, and only the last one is kept."""
    for name in ("one", "two"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "python").symlink_to(sys.executable)
        (tmp_path / name / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    (tmp_path / "current").symlink_to("one")
    env = {"PYTHONPATH": f"{versions.current}:{sysconfig.get_path('purelib')}"}
    srvd = starter.new("--workers", "1", env=env)
    srvd.command[:1] = [str(tmp_path / "current" / "bin" / "python"), "-m", "srvd"]
    srvd.start()
    wait_for(lambda: kept_size(srvd) > 0)
    before = pids(srvd)
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("two")
    shutil.rmtree(tmp_path / "one")
    versions.edit("1.0", BROKEN_IN_PLACE["when all is there"])
    done = srvd.ctl("upgrade")
    assert done.returncode == 1
    assert "srvd 1.0 goes on" in done.stderr
    assert (version(srvd), pids(srvd)) == ("1.0", before)


def test_a_bug_in_the_first_turn_of_the_new_program_leaves_the_workers_to_the_next_daemon(
    old: Srvd, versions: Versions
) -> None:
    bug = "        daemon.handle_signals()\n        return"
    versions.install("1.1", {"daemon/entry/resume.py": (bug, f"        raise RuntimeError('a bug')\n{bug}")})
    workers = pids(old)["workers"]
    with old.under_load(4) as load:
        left = old.family()
        old.order("upgrade")
        assert old.wait() == EXIT.BUG
        old.adopted = left
        versions.use("1.0")
        old.start()
    old.wait_logged("the daemon before this one has died")
    assert pids(old)["workers"] == workers
    assert load.failed == []


def test_after_a_failed_upgrade_the_next_one_succeeds(old: Srvd, versions: Versions) -> None:
    versions.install("1.1", BROKEN_IN_PLACE["when all is there"])
    assert old.ctl("upgrade").returncode == 1
    assert old.ctl("upgrade").returncode == 1
    versions.install("1.2")
    upgraded(old)
    assert version(old) == "1.2"
    victim = old.kill_worker()
    old.wait_serving(2, without=victim)


def test_it_is_refused_while_the_daemon_starts(starter: Starter) -> None:
    srvd = starter.new("--workers", "1", code=apps.good(before=HELD))
    held = hold(srvd)
    srvd.start(ready=False)
    wait_for(srvd.listens)
    done = srvd.ctl("upgrade")
    assert done.returncode == 75
    assert "still starting" in done.stderr
    held.unlink()
    wait_for(srvd.is_ready, within=30)


# -- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delay", [0.0, 0.15, 0.4, 0.8, *(pytest.param(delay, marks=pytest.mark.long) for delay in (0.05, 0.25, 0.6))]
)
def test_a_stop_at_any_moment_of_an_upgrade_wins(srvd: Srvd, delay: float) -> None:
    srvd.order("upgrade")
    assert stays(lambda: srvd.process is not None, delay)
    srvd.signal(signal.SIGTERM)
    assert srvd.wait() == 0
    assert srvd.logged().rstrip().endswith("stopped")


def test_a_second_upgrade_under_way_is_the_same_one(old: Srvd) -> None:
    first, second = old.order("upgrade"), old.order("upgrade")
    assert first == second
    wait_for(lambda: old.call("history")["operations"][0]["state"] == "done")


# -- orders and how it was started ----------------------------------------------------------------------------------


def test_an_order_with_a_key_is_carried_out_once_over_an_upgrade(old: Srvd) -> None:
    order = {"delta": 1, "pool": "web"}
    with old.client() as client:
        first = client.call("scale", order, idem="one-more")["operation"]
    upgraded(old)
    with old.client() as client:
        again = client.call("scale", order, idem="one-more")["operation"]
        with pytest.raises(Conflict):
            client.call("scale", {"delta": 2, "pool": "web"}, idem="one-more")
    assert (again["id"], again["result"]["desired"]) == (first["id"], 3)
    assert len(old.serving()) == 3


def test_one_in_the_background_with_a_log_file_and_a_pidfile(starter: Starter, versions: Versions) -> None:
    srvd = starter.new("--workers", "1", "--log-file", "srvd.log", "--pidfile", "srvd.pid", env=versions.env)
    assert srvd.daemonize().returncode == 0
    versions.install("1.1")
    upgraded(srvd)
    assert (srvd.folder / "srvd.pid").read_text() == f"{srvd.pid}\n"
    log = srvd.folder / "srvd.log"
    assert "srvd 1.1 runs, 1.0 did before" in log.read_text()
    log.rename(srvd.folder / "srvd.log.1")
    assert srvd.ctl("reopen").returncode == 0
    assert srvd.stop() == 0
    wait_for(lambda: "stopped" in log.read_text())
    assert not (srvd.folder / "srvd.pid").exists()


def test_a_socket_of_the_environment_is_kept(starter: Starter, versions: Versions) -> None:
    with socket.create_server(("127.0.0.1", 0)) as lent:
        number = lent.fileno()
        srvd = starter.new(config=toml("workers = 1", bind=f"fd:{number}"), env=versions.env, fds=(number,)).start()
        address = lent.getsockname()
    for _ in range(2):
        upgraded(srvd)
        assert srvd.ctl("reload").returncode == 0  # which names it anew
    assert srvd.address() == address
    assert srvd.get().startswith("one ")


@pytest.mark.parametrize("chdir", [False, True], ids=["", "with chdir"])
def test_the_folder_that_it_was_started_in_may_be_removed(starter: Starter, tmp_path: Path, chdir: bool) -> None:
    """As by a deploy that keeps the last few releases. Only what is loaded from there needs it."""
    release, kept = tmp_path / "release", tmp_path / "kept"
    for folder in (release, kept):
        folder.mkdir()
        (folder / "app.py").write_text(apps.good())
    srvd = starter.new("--workers", "1", env={"SRVD_CHDIR": str(kept)} if chdir else {})
    srvd.deploy("raise RuntimeError('not from here')")
    srvd.start(cwd=release)
    shutil.rmtree(release)
    upgraded(srvd)
    done = srvd.ctl("reload")
    if chdir:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert f"enter {release}, where srvd was started: No such file or directory" in done.stderr
        assert "set `chdir`" in done.stderr
    assert srvd.get().startswith("one ")


def test_a_relative_path_is_still_one_of_the_folder_that_is_gone(starter: Starter, tmp_path: Path) -> None:
    release = tmp_path / "release"
    release.mkdir()
    (release / "app.py").write_text(apps.good())
    srvd = starter.new("--workers", "1", "--pidfile", "srvd.pid").start(cwd=release)
    shutil.rmtree(release)
    upgraded(srvd)
    found = {one["key"]: one["value"] for one in srvd.call("config")["settings"]}
    assert found["daemon.pidfile"] == str(release / "srvd.pid")


def test_its_settings_come_from_where_they_came_from(starter: Starter, versions: Versions) -> None:
    srvd = starter.new(config=toml("workers = 1"), env={**versions.env, "SRVD_THREADS": "3"})
    srvd.command += ["--workers", "2"]
    srvd.start()
    upgraded(srvd)
    assert srvd.ctl("reload").returncode == 0
    found = {one["key"]: (one["value"], one["origin"]) for one in srvd.call("config")["settings"]}
    assert found["pools.web.workers"] == (2, "flag --workers")
    assert found["pools.web.threads"] == (3, "environment SRVD_THREADS")


def test_a_self_check_can_be_cancelled(old: Srvd, versions: Versions) -> None:
    wait = "    program = this_program()"
    versions.install("1.1", {"daemon/entry/self_check.py": (wait, f"    import time; time.sleep(30)\n{wait}")})
    op = old.order("upgrade")
    old.call("op.cancel", id=op)
    assert old.operation(op)["state"] == "cancelled"
    with pytest.raises(Conflict):
        old.call("op.cancel", id=op)
    with pytest.raises(SrvdError):
        old.call("op.wait", id=op)
    versions.use("1.0")
    upgraded(old)
