"""Applications that hang, exit or crash, at import, at boot or at a request, while the former release serves."""

from __future__ import annotations

import os
import signal

import pytest

from tests import apps
from tests.conftest import Starter
from tests.daemon import toml
from tests.fault import Fault, under_load
from tests.support import wait_for

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

SETTINGS = 'workers = 2\nboot_timeout = "3s"\nhealth_timeout = "1s"\n'


def _failed(fault: Fault, op: int, reasons: tuple[str, ...]) -> None:
    """The reload has failed for one of the reasons, and nobody has noticed."""
    srvd = fault.srvd
    fault.repaired(lambda: srvd.operation(op)["ended_at"])
    shown = srvd.operation(op)
    assert shown["state"] == "failed"
    told = f"{shown['error']['message']} {shown['error']['detail'].get('traceback', '')}"
    assert any(reason in told for reason in reasons), told
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
        _failed(fault, op, (REASON[kind], "within 3 s", "exited with code", "killed by signal"))
        wait_for(lambda: len(srvd.family()) == 3)
    assert fault.lost() == []
    assert fault.load.releases == {"one"}


AT_BOOT = {
    "hangs": "time.sleep(3600)",
    "exits 0": "os._exit(0)",
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
            assert "ZeroDivisionError" in srvd.logged()
        else:
            _failed(fault, op, ("within 3 s", "exited with code 0", "killed by signal 11"))
    assert fault.lost() == []


AT_REQUEST = {"hangs": "hang()", "exits": "os._exit(3)", "crashes": "__import__('ctypes').string_at(0)"}


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
        _failed(fault, op, ("not answered within 1 s", "exited with code 3", "killed by signal 11"))
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
    deaths = srvd.deaths(pool="web", limit=100)
    mine = {death["worker"] for death in deaths if death["worker"].startswith("web/2#")}
    assert all(failure.holder in {*mine, "", "web/1#1", "web/1#2"} for failure in fault.load.failed)
    history = srvd.call("history")["operations"]
    assert "rolled back" in {op["state"] for op in history} or "rollback" in {op["kind"] for op in history}
    assert "GET /" in fault.why("web")


def test_a_crash_loop_is_slowed_down_told_and_ended_by_good_code(starter: Starter) -> None:
    """One worker of two is gone for as long as the code is bad; the other one serves."""
    srvd = starter(config=toml("workers = 2"), code=apps.good("one", apps.CRASH_IF_TOLD))
    with under_load(srvd, "a crash loop, after its cause is gone and `srvctl resume`") as fault:
        (srvd.folder / "crash").touch()
        victim = srvd.serving()[0]
        os.kill(victim["pid"], signal.SIGKILL)
        wait_for(lambda: srvd.pool()["state"] == "crashing")
        assert len(srvd.names()) == 1
        assert "crashing as told" in srvd.logged()
        assert "could not boot; exited with code 9" in fault.why("web")
        (srvd.folder / "crash").unlink()
        fault.strikes()
        assert srvd.ctl("resume").returncode == 0
        fault.replaced(victim["id"], 2)
    assert fault.lost(victim["id"]) == []
    assert srvd.pool()["state"] == "ready"


def test_a_first_start_that_cannot_succeed_ends_with_the_reason(starter: Starter) -> None:
    for kind, code in AT_IMPORT.items():
        done = starter.new(config=toml(SETTINGS), code=code).run()
        assert done.returncode == 1, kind
        assert REASON[kind] in done.stderr, (kind, done.stderr)
