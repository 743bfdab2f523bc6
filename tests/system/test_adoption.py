"""Claims about a daemon that dies and the next start, which adopts what it left: under load, with real processes.

What an orphan does by itself is in daemon/family/test_orphans.py.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from srvd.daemon.recovery.state_file import Sealed, seal, unseal
from tests.conftest import Starter
from tests.support import apps
from tests.support.adoption import adopted, die, is_known, is_whole, is_written, pids, state, zygote_of
from tests.support.apps import HELD
from tests.support.daemon import BOOT, free_port, is_alive, toml
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system


def test_a_daemon_that_is_killed_and_started_again_loses_no_request_and_no_worker(starter: Starter) -> None:
    srvd = starter("--workers", "3")
    with srvd.under_load() as load:
        zygotes = srvd.zygotes()
        before = die(srvd)
        load.more()
        srvd.start()
        load.more()
        assert pids(srvd) == before
        wait_for(lambda: srvd.zygotes() == zygotes)  # the interpreter that was started in advance ends
        status = srvd.status()
        assert [pool["state"] for pool in status["pools"]] == ["ready"]
        assert status["daemon"]["pid"] == srvd.pid
        assert sum(worker["requests"] for worker in srvd.serving()) > load.answered / 2
        is_whole(srvd)
        load.more()
    assert load.failed == []
    srvd.wait_logged("are adopted")


def test_it_may_die_again_and_again(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    fds = srvd.fds()
    with srvd.under_load(clients=4) as load:
        before = pids(srvd)
        for _ in range(4):
            assert die(srvd) == before
            srvd.start()
            load.more()
        assert pids(srvd) == before
        assert srvd.fds() <= fds + 4  # the rendezvous and its epoll, and what status opens
        is_whole(srvd)
    assert load.failed == []


def test_workers_are_adopted_without_their_zygote(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    with srvd.under_load() as load:
        wait_for(lambda: is_written(srvd))
        before = pids(srvd)
        (zygote,) = srvd.zygotes()
        srvd.signal(signal.SIGSTOP)
        zygote.kill()
        srvd.die()
        adopted(srvd)
        assert pids(srvd).items() & before.items()
        wait_for(srvd.is_ready, BOOT)  # the zygote was loaded anew
        load.more()
        is_whole(srvd)
    assert load.failed == []
    assert any("zygote" in line and "died" in line for line in srvd.logged().splitlines())


def test_orphans_leave_when_nobody_comes(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2\norphan_timeout = 1"))
    with srvd.under_load(clients=4) as load:
        die(srvd)
        left = list(srvd.adopted)
        load.more()
        assert load.failed == []
        load.over.set()
    wait_for(lambda: not [one for one in left if is_alive(one)], BOOT)
    srvd.start()
    assert srvd.get().startswith("one ")
    assert "adopted" not in srvd.logged()


def test_a_configuration_that_has_changed_comes_into_force(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"))
    with srvd.under_load(clients=4) as load:
        before = die(srvd)
        srvd.configure(toml("workers = 3\nkeepalive_timeout = 20"))
        srvd.good("two")
        srvd.start()
        srvd.wait_serving(3)
        wait_for(lambda: not before.keys() & pids(srvd).keys(), BOOT)
        load.more()
    assert load.failed == []
    assert load.releases == {"one", "two"}
    assert srvd.call("history")["operations"][0]["kind"] == "reload"


def test_the_same_configuration_changes_nothing(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"))
    srvd.call("reload")
    before = die(srvd)
    srvd.start()
    assert pids(srvd) == before
    kinds = [operation["kind"] for operation in srvd.call("history")["operations"]]
    assert kinds == ["reload", "start"]
    assert "the former daemon died; 2 workers came to this one" in srvd.ctl("events").stdout
    srvd.call("rollback")
    assert {worker.split("#")[0] for worker in pids(srvd)} == {"web/1"}


def test_an_override_and_a_pause_are_kept(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    srvd.call("scale", pool="web", size=3)
    die(srvd)
    srvd.start()
    pool = srvd.pool()
    assert (pool["desired"], pool["configured"], pool["serving"]) == (3, 2, 3)


@pytest.mark.parametrize("zygote", ["lives", "is gone"])
def test_an_adopted_worker_that_dies_is_replaced_and_why_is_honest(starter: Starter, zygote: str) -> None:
    srvd = starter("--workers", "2", code=apps.good("one", HELD))
    held = srvd.folder / "held"
    wait_for(lambda: is_written(srvd))
    if zygote == "is gone":
        held.touch()  # or another generation is there before we have looked
        srvd.signal(signal.SIGSTOP)
        zygote_of(srvd).kill()
    srvd.die()
    adopted(srvd)
    name, pid = min(pids(srvd).items())
    os.kill(pid, signal.SIGKILL)
    (death,) = wait_for(lambda: srvd.deaths(worker=name), BOOT)
    if zygote == "lives":
        assert (death["cause"], death["signal"]) == ("signal", signal.SIGKILL)
    else:
        assert (death["cause"], death["signal"]) == ("unknown", None)
        assert "unseen" in death["summary"]
        held.unlink()
    srvd.wait_serving(2, without=name)
    wait_for(srvd.is_ready, BOOT)


def test_who_died_while_there_was_no_daemon_is_replaced_and_told_of(starter: Starter) -> None:
    srvd = starter("--workers", "3")
    before = die(srvd)
    victim = next(iter(before))
    os.kill(before[victim], signal.SIGKILL)
    srvd.start()
    srvd.wait_serving(3, without=victim)
    (death,) = srvd.deaths(worker=victim)
    assert death["signal"] == signal.SIGKILL


def test_a_worker_in_a_long_request_is_adopted_and_answers(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/until/over")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        before = die(srvd)
        srvd.start()
        assert not slow.done()
        assert pids(srvd) == before
        (srvd.folder / "over").touch()
        holder = slow.result().split()[1]
    assert pids(srvd) == before
    srvd.call("recycle", worker=holder)  # it has come by now, and obeys
    assert holder not in pids(srvd)
    assert wait_for(lambda: srvd.deaths(worker=holder))[0]["exit_code"] == 0


def test_workers_that_are_all_busy_are_waited_for(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/sleep/15")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        wait_for(lambda: is_written(srvd))
        srvd.signal(signal.SIGSTOP)
        zygote_of(srvd).kill()
        srvd.die()
        adopted(srvd)
        assert slow.result().startswith("one ")
    srvd.wait_logged("1 worker came")
    srvd.wait_logged("waiting for 1 busy")
    wait_for(srvd.is_ready, BOOT)


def test_a_reload_in_the_middle_is_abandoned_and_says_so(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"), code=apps.good("one", apps.SLOW_IF_TOLD.format(seconds=1000)))
    (srvd.folder / "slow").touch()
    with srvd.under_load(clients=4) as load:
        op = srvd.order("reload")
        srvd.wait_operation(op, "load")
        wait_for(lambda: is_known(srvd, op))
        before = die(srvd)
        (srvd.folder / "slow").unlink()
        srvd.start()
        ended = srvd.operation(op)
        assert ended["state"] == "failed"
        assert "the daemon died" in ended["error"]["message"]
        assert pids(srvd) == before
        is_whole(srvd)
    assert load.failed == []


def test_a_trial_that_waits_for_its_probe_is_abandoned(starter: Starter) -> None:
    code = apps.good().replace(
        "path = ", "path = environ['PATH_INFO']; time.sleep(1000 if path == '/health' else 0); path = "
    )
    srvd = starter(config=toml("workers = 2"))
    with srvd.under_load(clients=4) as load:
        srvd.configure(toml('workers = 2\nhealth = "/health"\nhealth_timeout = 600'))
        srvd.deploy(code)
        op = srvd.order("reload")
        srvd.wait_operation(op, "probe")
        wait_for(lambda: b"web/2#" in state(srvd).read_bytes())
        before = die(srvd)
        trial = [one for one in srvd.adopted if one.pid not in before.values()]
        srvd.configure(toml("workers = 2"))
        srvd.good()
        srvd.start()
        assert srvd.operation(op)["state"] == "failed"
        assert pids(srvd).keys() == before.keys()
        wait_for(lambda: len([one for one in trial if is_alive(one)]) == 1)  # the zygote that serves on
    assert load.failed == []


def test_a_scale_in_the_middle_ends_with_the_old_size(starter: Starter) -> None:
    code = apps.good("one", apps.SLOW_IF_TOLD.format(seconds=1000))
    srvd = starter(config=toml('workers = 2\npreload = "off"'), code=code)
    (srvd.folder / "slow").touch()
    op = srvd.order("scale", pool="web", size=4)
    wait_for(lambda: sum(worker["state"] == "booting" for worker in srvd.pool()["workers"]) == 2)
    wait_for(lambda: is_known(srvd, op))
    before = die(srvd)
    (srvd.folder / "slow").unlink()
    srvd.start()
    assert srvd.operation(op)["state"] == "failed"
    assert "back to 2" in srvd.operation(op)["error"]["message"]
    assert pids(srvd) == before
    wait_for(lambda: len(srvd.pool()["workers"]) == 2)


def test_a_daemon_killed_while_it_starts_is_started_anew(starter: Starter) -> None:
    srvd = starter.new(config=toml('workers = 2\npreload = "off"'))
    srvd.deploy(apps.good("one", apps.SLOW_IF_TOLD.format(seconds=1000)))
    (srvd.folder / "slow").touch()
    srvd.start(ready=False)
    wait_for(lambda: srvd.socket.exists() and len(srvd.pool()["workers"]) == 2)
    srvd.die()
    (srvd.folder / "slow").unlink()
    srvd.start()
    assert srvd.get().startswith("one ")


def test_a_stop_that_was_under_way_is_no_reason_not_to_start(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/sleep/2")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        srvd.order("stop")
        wait_for(lambda: b"stopped" in state(srvd).read_bytes())
        srvd.die()
        assert slow.result().startswith("one ")
    srvd.start()
    assert srvd.get().startswith("one ")


@pytest.mark.parametrize("damage", ["nothing", "nonsense", "another version", "cut", "removed", "readable by all",
                                    "a link", "a pipe", "somebody else's"])  # fmt: skip
def test_a_state_that_cannot_be_read_stops_no_start(starter: Starter, damage: str) -> None:
    if damage == "somebody else's" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    srvd = starter(config=toml("workers = 2", bind=f"unix:{starter.folder}/web.sock"))
    die(srvd)
    whole = state(srvd).read_bytes()
    match damage:
        case "nothing":
            state(srvd).write_bytes(b"")
        case "nonsense":
            state(srvd).write_bytes(b"\xc1" * 100)
        case "another version":
            other = unseal(whole).data.replace(b"\xa7version\x01", b"\xa7version\x63")
            state(srvd).write_bytes(seal(Sealed(unseal(whole).stamp, other)))
        case "cut":
            state(srvd).write_bytes(whole[: len(whole) // 2])
        case "removed":
            state(srvd).unlink()
        case "a link":
            state(srvd).rename(srvd.folder / "elsewhere")
            state(srvd).symlink_to(srvd.folder / "elsewhere")
        case "a pipe":
            state(srvd).unlink()
            os.mkfifo(state(srvd), 0o600)
        case "somebody else's":
            os.chown(state(srvd), 65534, 65534)
        case _:
            state(srvd).chmod(0o644)
    left = list(srvd.adopted)
    srvd.start()
    assert {worker.split("#")[0] for worker in pids(srvd)} == {"web/1"}
    wait_for(lambda: not [one for one in left if is_alive(one)], BOOT)
    srvd.wait_logged("is sent away")
    state(srvd).with_name("control.sock.state.bad").unlink(missing_ok=True)


def test_without_a_state_the_listeners_are_taken_over_all_the_same(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2", bind=f"127.0.0.1:{free_port()}"))
    with srvd.under_load(clients=4) as load:
        die(srvd)
        state(srvd).unlink()
        srvd.start()
        load.more()
    assert load.failed == []


def test_nothing_is_left_of_it_after_a_stop(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    die(srvd)
    srvd.start()
    left = srvd.family()
    assert srvd.stop() == 0
    wait_for(lambda: not [one for one in left if is_alive(one)])
    assert [path.name for path in srvd.folder.iterdir() if path.name.startswith("control")] == []


def test_a_second_start_is_refused_and_harms_nobody(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    die(srvd)
    srvd.start()
    second = srvd.run()
    assert second.returncode == 71
    assert "already holds it" in second.stderr
    assert len(pids(srvd)) == 2


def test_the_state_is_for_the_daemon_alone_and_is_not_written_while_nothing_happens(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    wait_for(lambda: is_written(srvd))
    assert state(srvd).stat().st_mode & 0o777 == 0o600

    def written() -> int:
        return state(srvd).stat().st_mtime_ns

    wait_for(lambda: time.time_ns() - written() > 500_000_000)
    before = written()
    for _ in range(20):
        srvd.get()
    assert stays(lambda: written() == before, 0.5)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its workers another user")
def test_workers_of_another_user_are_adopted(starter: Starter) -> None:
    srvd = starter.new(config=toml('workers = 2\nuser = "daemon"'))
    srvd.let_others_in()
    srvd.start()
    with srvd.under_load(clients=4) as load:
        before = die(srvd)
        srvd.start()
        assert pids(srvd) == before
        is_whole(srvd)
    assert load.failed == []


def test_a_bug_in_the_daemon_leaves_its_workers_to_the_next_one(starter: Starter) -> None:
    """SIGABRT ends it as a fault of the interpreter would."""
    srvd = starter("--workers", "2")
    with srvd.under_load(clients=4) as load:
        wait_for(lambda: is_written(srvd))
        before = pids(srvd)
        srvd.die(signal.SIGABRT)
        srvd.start()
        assert pids(srvd) == before
    assert load.failed == []
