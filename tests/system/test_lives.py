"""Lives of workers and zygotes: deaths and what is told of them, recycling, pauses, rollbacks, strange children."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from srvd.errors import Conflict
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, ask, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

AT_ONCE = 5.0


# -- deaths -------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_at_once(srvd: Srvd) -> None:
    for _ in range(3):
        victim = srvd.kill_worker()
        killed = time.monotonic()
        srvd.wait_serving(2, without=victim)
        assert time.monotonic() - killed < AT_ONCE
    assert srvd.pool()["restarts"] == 3
    assert srvd.pool()["state"] == "ready"


def test_a_death_leaves_a_certificate(srvd: Srvd) -> None:
    with pytest.raises(OSError, match=r"without response|reset"):
        srvd.get("/exit")
    (death,) = wait_for(srvd.deaths)
    assert (death["cause"], death["exit_code"], death["signal"]) == ("exited", 3, None)
    assert death["request"] == "GET /exit"
    assert death["ready"]
    why = srvd.ctl("why")
    assert why.returncode == 0
    assert "exited with code 3" in why.stdout
    assert "GET /exit" in why.stdout
    assert srvd.ctl("why", death["worker"]).returncode == 0
    assert srvd.ctl("why", "web/1#99").returncode == 4


def test_what_a_worker_writes_to_stderr_is_logged_with_its_name(srvd: Srvd) -> None:
    name = srvd.get("/say").split()[1]
    srvd.wait_logged(f"{name} | said on stderr")
    srvd.kill_worker(name)
    death = wait_for(lambda: srvd.deaths(worker=name))[0]
    assert "said on stderr" in death["stderr"]
    assert "said on stderr" in srvd.ctl("why", name).stdout


def test_what_is_said_at_import_is_logged_with_the_zygotes_name(starter: Starter) -> None:
    srvd = starter(code=apps.good("one", "import sys\nprint('importing \\x1b[31mred', file=sys.stderr)\n"))
    srvd.wait_logged("web@1 | importing \\x1b[31mred")  # and no terminal obeys it


def test_a_worker_that_is_stopped_in_a_request_is_continued_when_that_is_overdue(starter: Starter) -> None:
    """SIGSTOP, and it is overdue before it would be continued: it hears no order. Its replacement serves first; then it
    is continued, answers, and leaves.
    """
    srvd = starter(config=toml('workers = 1\nrequest_timeout = "0.5s"\ndrain_timeout = "1s"'))
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(srvd.get, "/sleep/0.3")
        wait_for(lambda: srvd.serving()[0]["busy"])
        victim = srvd.serving()[0]
        os.kill(victim["pid"], signal.SIGSTOP)
        srvd.wait_serving(1, without=victim["id"])
        assert srvd.get().startswith("one web/1#2 ")
        assert asked.result().startswith(f"one {victim['id']} ")
    death = wait_for(srvd.deaths)[0]
    assert (death["cause"], death["exit_code"]) == ("request_timeout", 0)


def test_a_grandchild_is_adopted_and_reaped(starter: Starter) -> None:
    """What a worker started and left behind ends as nobody's zombie."""
    spawn = (
        'if path == "/spawn":\n        import subprocess\n        subprocess.Popen(["true"])\n    if path == "/exit":'
    )
    srvd = starter("--workers", "1", code=apps.good("one").replace('if path == "/exit":', spawn))
    srvd.get("/spawn")
    srvd.kill_worker()
    srvd.wait_serving(1, without="web/1#1")
    wait_for(lambda: len(srvd.family()) == 2)
    assert psutil.STATUS_ZOMBIE not in {process.status() for process in srvd.family()}


def test_the_process_titles_say_who_is_who(srvd: Srvd) -> None:
    titles = {" ".join(process.cmdline()).rstrip() for process in srvd.family()}
    assert titles == {"srvd: zygote web@1", "srvd: worker web/1#1", "srvd: worker web/1#2"}
    assert " ".join(psutil.Process(srvd.pid).cmdline()).rstrip() == "srvd: daemon srvd"


# -- zygotes ------------------------------------------------------------------------------------------------------


def test_a_zygote_killed_takes_no_worker_along_and_is_repaired(srvd: Srvd) -> None:
    before = {worker["pid"] for worker in srvd.serving()}
    with srvd.under_load(4) as load:
        (zygote,) = srvd.zygotes()
        zygote.kill()
        wait_for(lambda: srvd.pool()["generation"] == 2)
        wait_for(lambda: srvd.pool()["state"] == "ready")
        load.more()
    assert load.failed == []
    assert load.releases == {"one"}
    srvd.wait_logged("its workers serve on, it is loaded anew")
    assert {worker["pid"] for worker in srvd.serving()}.isdisjoint(before)  # of the new zygote, one by one
    victim = srvd.kill_worker()
    srvd.wait_serving(2, without=victim)


def test_a_zygote_killed_while_the_code_on_disk_is_broken(srvd: Srvd) -> None:
    """The workers serve on; the repair is tried again until the code is good."""
    before = srvd.names()
    srvd.deploy(apps.BROKEN["raises at import"])
    (zygote,) = srvd.zygotes()
    with srvd.under_load(2) as load:
        zygote.kill()
        wait_for(lambda: [op for op in srvd.call("history")["operations"] if op["state"] == "failed"])
        assert srvd.names() == before
        assert srvd.pool()["state"] == "degraded"
        status = srvd.ctl("status")
        assert status.returncode == 3
        srvd.good("two")
        wait_for(lambda: srvd.pool()["state"] == "ready", within=30)
    assert load.failed == []
    assert srvd.get().startswith("two ")


def test_a_worker_that_dies_while_there_is_no_zygote_comes_back_with_the_next_one(srvd: Srvd) -> None:
    (zygote,) = srvd.zygotes()
    zygote.kill()
    victim = srvd.kill_worker()
    srvd.wait_serving(2, without=victim)
    wait_for(lambda: srvd.pool()["state"] == "ready")


def test_a_parked_zygote_killed_costs_only_the_rollback(srvd: Srvd) -> None:
    assert srvd.ctl("reload").returncode == 0
    assert srvd.pool()["former"] == 1
    parked = next(one for one in srvd.zygotes() if "web@1" in " ".join(one.cmdline()))
    parked.kill()
    wait_for(lambda: srvd.pool()["former"] is None)
    with pytest.raises(Conflict, match="no former generation"):
        srvd.call("rollback")
    assert srvd.pool()["state"] == "ready"


# -- orders about workers -----------------------------------------------------------------------------------------


def test_recycle_replaces_all_workers_without_a_loss(srvd: Srvd) -> None:
    before = srvd.names()
    with srvd.under_load(4) as load:
        srvd.deploy(apps.BROKEN["raises at import"])  # no code is loaded anew
        recycle = srvd.ctl("recycle")
        assert recycle.returncode == 0
        load.more()
    assert load.failed == []
    assert srvd.names().isdisjoint(before)
    assert {worker["generation"] for worker in srvd.serving()} == {1}
    assert len(srvd.serving()) == 2


def test_recycle_of_one_worker_leaves_the_others(srvd: Srvd) -> None:
    assert srvd.ctl("recycle", "web/1#1").returncode == 0
    assert srvd.names() == {"web/1#2", "web/1#3"}


def test_pause_lets_connections_wait_and_resume_answers_them(srvd: Srvd) -> None:
    assert srvd.ctl("pause").returncode == 0
    assert srvd.serving() == []
    assert srvd.pool()["state"] == "paused"
    assert srvd.ctl("status").returncode == 3
    client = srvd.connect()
    client.request("GET", "/")
    assert srvd.ctl("scale", "3").returncode == 0  # what it shall be when it is resumed
    assert srvd.ctl("resume").returncode == 0
    assert client.getresponse().read().startswith(b"one ")
    client.close()
    assert len(srvd.serving()) == 3
    assert srvd.ctl("status").returncode == 0


def test_a_reload_of_a_paused_pool_stays_paused(srvd: Srvd) -> None:
    assert srvd.ctl("pause").returncode == 0
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    assert srvd.pool()["state"] == "paused"
    assert srvd.serving() == []
    assert srvd.ctl("resume").returncode == 0
    assert srvd.get().startswith("two ")


def test_rollback_goes_back_and_forth(srvd: Srvd) -> None:
    assert srvd.ctl("rollback").returncode == 1  # to what?
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    srvd.deploy(apps.BROKEN["hangs at import"])  # nothing is loaded for a rollback
    with srvd.under_load(4) as load:
        rollback = srvd.ctl("rollback")
        assert rollback.returncode == 0
        load.more()
    assert load.failed == []
    assert srvd.get().startswith("one web/1#")
    assert srvd.ctl("rollback").returncode == 1  # it would bring back what was gone back from
    assert srvd.ctl("rollback", "--to", "web@2").returncode == 0
    assert srvd.get().startswith("two web/2#")


def test_scaling_down_lets_the_idle_leave_first(srvd: Srvd) -> None:
    assert srvd.ctl("scale", "4").returncode == 0
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/until/over")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        busy = next(worker["id"] for worker in srvd.serving() if worker["busy"])
        assert srvd.ctl("scale", "1").returncode == 0
        assert srvd.names() == {busy}
        (srvd.folder / "over").touch()
        assert slow.result().startswith(f"one {busy} ")


def test_scale_to_nobody_and_back(srvd: Srvd) -> None:
    assert srvd.ctl("scale", "0").returncode == 0
    assert srvd.serving() == []
    assert srvd.ctl("scale", "2").returncode == 0
    assert srvd.get().startswith("one ")


def test_a_keep_alive_client_of_a_worker_that_leaves_is_told(srvd: Srvd) -> None:
    client = srvd.connect()
    ask(client)
    assert srvd.ctl("recycle").returncode == 0
    client.request("GET", "/")
    response = client.getresponse()
    assert response.read().startswith(b"one web/1#")
    assert response.getheader("Connection") == "close"
    client.close()
    wait_for(lambda: srvd.pool()["draining"] == 0)


def test_the_daemon_killed_takes_nobody_accepted_along(starter: Starter) -> None:
    """kill -9 of the daemon, and nobody shall wait for another: workers see the end of their link, answer what they
    have, and leave.
    """
    srvd = starter(config=toml("workers = 2\norphan_timeout = 0"))
    family = srvd.family()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/sleep/0.5")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        srvd.signal(signal.SIGKILL)
        assert srvd.wait() == -signal.SIGKILL
        assert slow.result().startswith("one ")
    wait_for(lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
    assert srvd.socket.exists()
    srvd.start()  # on the same path: the lock, not the file, tells whether a daemon lives
    assert srvd.get().startswith("one ")
