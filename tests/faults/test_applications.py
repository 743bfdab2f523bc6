"""Applications that hang, exit or crash, at import, at boot or at a request, while the former release serves."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, toml
from tests.support.fault import CLIENTS, Fault, under_load
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

CRASH = "import ctypes\nctypes.string_at(0)\n"

AT_IMPORT = {
    **apps.BROKEN,
    "exits 3": "import os\nos._exit(3)\n",
    "calls sys.exit": "import sys\nsys.exit(0)\n",
    "crashes": CRASH,
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "takes all memory": "raise MemoryError\n",
}

REASON = {
    **apps.REASON,
    "exits 3": "exit",
    "calls sys.exit": "SystemExit: 0",
    "crashes": "signal 11",
    "kills itself": "signal 9",
    "takes all memory": "MemoryError",
}

PROOF = apps.PROOF | {"takes all memory": "Traceback (most recent call last)"}
"""What is shown of it: a hang's stack, a traceback, last words. Who ends without a word leaves none."""

SETTINGS = 'workers = 2\nboot_timeout = "3s"\nhealth_timeout = "1s"\n'


def _failed(fault: Fault, op: int, reasons: tuple[str, ...], proof: str = "") -> None:
    """The reload has failed for one of the reasons, and nobody has noticed; the asker has the proof."""
    srvd = fault.srvd
    fault.repaired(lambda: srvd.operation(op)["ended_at"])
    shown = srvd.operation(op)
    assert shown["state"] == "failed"
    told = f"{shown['error']['message']} {shown['error']['detail'].get('traceback', '')}"
    assert any(reason in told for reason in reasons), told
    assert proof in told
    assert srvd.names() == {"web/1#1", "web/1#2"}
    assert srvd.pool()["state"] == "ready"


@pytest.mark.parametrize("preload", ["auto", "off"])
@pytest.mark.parametrize("kind", AT_IMPORT)
def test_a_release_that_fails_at_import_costs_nothing(starter: Starter, kind: str, preload: str) -> None:
    """With preload the zygote dies of it, without it the first worker does."""
    srvd = starter(config=toml(f'{SETTINGS}preload = "{preload}"'))
    with under_load(srvd, f"a release that {kind}, preload {preload} (boot_timeout 3 s)") as fault:
        srvd.deploy(AT_IMPORT[kind])
        fault.strikes()
        op = srvd.order("reload")
        reasons = (REASON[kind], "within 3 s", "exited with code", "killed by signal")
        _failed(fault, op, reasons, PROOF.get(kind, ""))
        wait_for(lambda: len(srvd.family()) == 3)
    assert fault.lost() == []
    assert fault.load.releases == {"one"}
    why = fault.why()
    if preload == "auto":
        assert "no worker has died" in why
    else:
        assert "could not boot" in why or "was not ready in time" in why
        assert PROOF.get(kind, "").replace('", line ', ":") in why  # folded like the stacks of a dump


AT_BOOT = {
    "hangs": "time.sleep(3600)",
    "exits 0": "os._exit(0)",
    "exits 3": "os._exit(3)",
    "crashes": "ctypes.string_at(0)",
    "raises": "1/0",
}


@pytest.mark.parametrize("kind", AT_BOOT)
def test_a_release_that_fails_after_the_fork_costs_nothing(starter: Starter, kind: str) -> None:
    """Loaded well; what it has registered to run in each worker does not come back."""
    srvd = starter.new(config=toml(SETTINGS + 'hooks = "hooked"'))
    srvd.deploy("", "hooked")
    srvd.start()
    with under_load(srvd, f"a release whose workers' boot {kind} (boot_timeout 3 s)") as fault:
        code = f"import ctypes, os, time\ndef on_worker_start(worker):\n    {AT_BOOT[kind]}\n"
        srvd.deploy(code, "hooked")
        srvd.good("two")
        fault.strikes()
        op = srvd.order("reload")
        if kind == "raises":  # a hook that fails is logged, and keeps nobody from serving
            fault.repaired(lambda: srvd.operation(op)["state"] == "done")
            srvd.wait_logged("ZeroDivisionError")
        else:
            _failed(fault, op, ("within 3 s", f"exited with code {kind[-1]}", "killed by signal 11"))
            why = fault.why()
            assert "could not boot" in why or "was not ready in time" in why
            assert ("in on_worker_start" in why) == (not kind.startswith("exits"))  # where it hung, or crashed
    assert fault.lost() == []


AT_REQUEST = {
    "hangs": "hang()",
    "exits": "os._exit(3)",
    "crashes": "__import__('ctypes').string_at(0)",
    "raises": "1/0",
}


def _at_first_request(kind: str) -> str:
    return apps.good("two").replace(
        'path = environ["PATH_INFO"]', f'path = environ["PATH_INFO"]\n    {AT_REQUEST[kind]}'
    )


@pytest.mark.parametrize("kind", AT_REQUEST)
def test_a_release_that_fails_at_its_first_request_is_found_by_the_probe(starter: Starter, kind: str) -> None:
    srvd = starter.new(config=toml(SETTINGS + 'health = "/"')).start()
    with under_load(srvd, f"a release that {kind} at its first request, with a probe (health_timeout 1 s)") as fault:
        srvd.deploy(_at_first_request(kind))
        fault.strikes()
        op = srvd.order("reload")
        _failed(fault, op, ("not answered within 1 s", "exited with code 3", "killed by signal 11", "the health probe"))
        why = fault.why()
        if kind == "raises":  # the worker is well, and told to leave
            assert "ZeroDivisionError" in srvd.operation(op)["error"]["detail"]["traceback"]
        else:
            assert "did not answer the health probe in time" in why or "died by itself" in why
            assert ("in app" in why) == (kind != "exits")
    assert fault.lost() == []
    assert fault.load.releases == {"one"}


@pytest.mark.parametrize("kind", ["exits", "crashes"])
def test_a_release_that_dies_at_its_first_request_is_taken_back_without_a_probe(starter: Starter, kind: str) -> None:
    """What it costs is what it killed itself: then the former release serves again, by itself."""
    srvd = starter(config=toml("workers = 2"))
    with under_load(srvd, f"a release that {kind} at its first request, no probe") as fault:
        srvd.deploy(_at_first_request(kind))
        fault.strikes()
        srvd.order("reload")
        wait_for(lambda: srvd.pool()["generation"] == 2)
        fault.repaired(lambda: srvd.pool()["generation"] == 1 and len(srvd.names()) == 2)
        wait_for(lambda: {worker["generation"] for worker in srvd.pool()["workers"]} == {1})
        at = len(fault.load.failed)
        fault.load.more(100)
        assert len(fault.load.failed) == at
    deaths = [one for one in srvd.deaths(pool="web", limit=100) if one["worker"].startswith("web/2#")]
    assert fault.lost(*(death["worker"] for death in deaths)) == []
    # The former workers' clients, who were told to come again, lost nothing: it was the first request each time.
    assert {failure.holder for failure in fault.load.failed} == {""}
    assert len(fault.load.failed) >= len([death for death in deaths if death["request"] == "GET /"]) > 0
    history = srvd.call("history")["operations"]
    assert "rolled back" in {op["state"] for op in history} or "rollback" in {op["kind"] for op in history}
    assert "GET /" in fault.why("web")


def test_a_release_that_hangs_at_its_first_request_costs_these_until_a_rollback(starter: Starter) -> None:
    """Without a probe nobody knows that it was not one slow request. Each worker is ended with the one that it hangs
    in, as by then another one serves; and an operator who sees that goes back, which takes no import.
    """
    srvd = starter(config=toml(f'{SETTINGS}request_timeout = "1s"\ndrain_timeout = "1s"'))
    with under_load(srvd, "a release that hangs at its first request, no probe, after `srvctl rollback`") as fault:
        srvd.deploy(_at_first_request("hangs"))
        assert srvd.ctl("reload").returncode == 0
        wait_for(lambda: srvd.pool()["restarts"] >= 4, BOOT)  # so `srvctl status` has it
        assert len(srvd.names()) == 2
        fault.strikes()
        assert srvd.ctl("rollback").returncode == 0
        fault.repaired(lambda: srvd.names() and all(name.startswith("web/1#") for name in srvd.names()))
        wait_for(lambda: {worker["generation"] for worker in srvd.pool()["workers"]} == {1})
    deaths = [one for one in srvd.deaths(pool="web", limit=100) if one["worker"].startswith("web/2#")]
    assert {death["cause"] for death in deaths} <= {"request_timeout", "drain_timeout", "retired"}
    assert fault.lost(*(death["worker"] for death in deaths)) == []
    assert len(fault.load.failed) >= len([death for death in deaths if death["request"] == "GET /"]) >= 4
    assert {failure.holder for failure in fault.load.failed} == {""}
    assert "was stuck in a request" in fault.why()
    assert "in hang" in fault.why()


HANGS_ONCE = """
import os, time
def hang_once():
    if os.path.exists("hang"):
        os.unlink("hang")
        time.sleep(3600)
os.register_at_fork(after_in_child=hang_once)
"""
"""In front of an application: the next worker of it hangs before it is ready, if there is a file `hang`."""


def test_a_replacement_that_hangs_before_it_is_ready_is_replaced_in_its_turn(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\nboot_timeout = "2s"'), code=apps.good("one", HANGS_ONCE))
    with under_load(srvd, "a worker killed, and the next one hangs at boot (boot_timeout 2 s)") as fault:
        (srvd.folder / "hang").touch()
        victim = fault.kills()
        fault.replaced(victim, 2)
        wait_for(lambda: len(srvd.deaths()) == 2)  # its stacks are taken first
    assert fault.lost() == []
    late, first = srvd.deaths()
    assert (first["worker"], late["cause"]) == (victim, "boot_timeout")
    why = fault.why(late["worker"])
    assert "was not ready in time" in why
    assert "in hang_once" in why


@pytest.mark.parametrize("end", ["by itself", "by an order"])
def test_a_crash_loop_is_slowed_down_told_and_ended_by_good_code(starter: Starter, end: str) -> None:
    """One worker of two is gone for as long as the code is bad; the other one serves."""
    srvd = starter(config=toml("workers = 2"), code=apps.good("one", apps.CRASH_IF_TOLD))
    with under_load(srvd, f"a crash loop, after its cause is gone, {end}") as fault:
        (srvd.folder / "crash").touch()
        victim = fault.kills()
        wait_for(lambda: srvd.pool()["state"] == "crashing")
        assert len(srvd.names()) == 1
        srvd.wait_logged("crashing as told")
        assert "could not boot; exited with code 9" in fault.why("web")
        assert srvd.ctl("status").returncode == 3
        (srvd.folder / "crash").unlink()
        fault.strikes()
        if end == "by an order":
            assert srvd.ctl("resume").returncode == 0
        fault.replaced(victim, 2)
    assert fault.lost() == []
    # Without an order it is called crashing until a minute has gone well.
    assert srvd.pool()["state"] == ("ready" if end == "by an order" else "crashing")
    # Two at once, then after 0.1 s, 0.2 s, and so on: not as fast as the machine can.
    assert 4 <= len([death for death in srvd.deaths(pool="web", limit=100) if not death["ready"]]) <= 12


def test_a_crash_loop_of_all_workers_keeps_clients_waiting_and_answers_them(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"), code=apps.good("one", apps.CRASH_IF_TOLD))
    with under_load(srvd, "a crash loop of all workers, after its cause is gone and `srvctl resume`") as fault:
        (srvd.folder / "crash").touch()
        victims = [fault.dooms(), fault.dooms()]
        for victim in victims:
            os.kill(victim["pid"], signal.SIGKILL)
        wait_for(lambda: srvd.pool()["state"] == "crashing")
        assert not srvd.names()
        answered = fault.load.answered
        (srvd.folder / "crash").unlink()
        fault.strikes()
        assert srvd.ctl("resume").returncode == 0
        fault.repaired(lambda: len(srvd.names()) == 2)
        assert fault.load.answered > answered
    assert fault.lost() == []
    assert len(fault.load.failed) == CLIENTS  # each of them was connected to one of the two, and waited afterwards
    assert all("killed by signal 9" in fault.why(victim["id"]) for victim in victims)


def test_a_first_start_that_cannot_succeed_ends_with_the_reason(starter: Starter) -> None:
    """Nobody has ever served: no request can be lost, and nobody is left who could be asked why. The command tells."""
    for kind, code in AT_IMPORT.items():
        done = starter.new(config=toml(SETTINGS), code=code).run()
        assert done.returncode == 1, kind
        assert REASON[kind] in done.stderr, (kind, done.stderr)
        assert PROOF.get(kind, "") in done.stderr
