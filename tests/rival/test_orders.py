"""Rows of the rival's table: orders in a burst, sizes that are kept, orders that make no sense, settings misspelt.

The docstrings quote the row: the scenario – what gunicorn 27.0.1 was seen to do.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, toml

pytestmark = pytest.mark.system


def test_six_scale_up_orders_in_a_burst(srvd: Srvd) -> None:
    """Six scale-up orders in a burst – 3 to 5 of 8 workers (signals merge)."""
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(srvd.call, "scale", delta=1) for _ in range(6)]
        results = [answer.result(30)["operation"] for answer in answers]
    assert [operation["state"] for operation in results] == ["done"] * 6
    assert len({operation["id"] for operation in results}) == 6
    # Each was answered when it was true: they took their turns, and the last one saw eight.
    assert sorted(operation["result"]["desired"] for operation in results) == [3, 4, 5, 6, 7, 8]
    assert all(operation["result"]["serving"] == operation["result"]["desired"] for operation in results)
    assert len(srvd.serving()) == 8


def test_six_scale_up_orders_of_srvctl_in_a_burst(srvd: Srvd) -> None:
    """The same with the command, as a script would give them."""
    with ThreadPoolExecutor(6) as pool:
        codes = [done.returncode for done in pool.map(lambda _: srvd.ctl("scale", "+1"), range(6))]
    assert codes == [0] * 6
    assert len(srvd.serving()) == 8


def test_scale_then_reload(starter: Starter) -> None:
    """Scale, then reload – back to the config's number."""
    srvd = starter(config=toml("workers = 4"))
    assert srvd.ctl("scale", "8").returncode == 0
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    assert len(srvd.serving()) == 8
    assert srvd.get().startswith("two ")
    pool = srvd.pool()
    assert (pool["desired"], pool["configured"], pool["override"]) == (8, 4, 8)
    assert "8 (config 4)" in srvd.ctl("status").stdout
    srvd.configure(toml("workers = 3"))
    assert srvd.ctl("reload").returncode == 0
    assert "8 (config 3)" in srvd.ctl("status").stdout
    assert srvd.ctl("scale", "--reset").returncode == 0
    assert len(srvd.serving()) == 3
    assert srvd.pool()["override"] is None


def test_worker_add_minus_5_and_kill_of_an_unknown_pid(srvd: Srvd) -> None:
    """`worker add -5` / kill of an unknown pid – adds 1 / exit 0."""
    before = srvd.names()
    scale = srvd.ctl("scale", "-5")
    assert scale.returncode == 2
    assert "cannot have -3 workers" in scale.stderr
    recycle = srvd.ctl("recycle", "web/1#99")
    assert recycle.returncode == 4
    assert "web/1#99" in recycle.stderr
    assert srvd.ctl("scale", "4", "wbe").returncode == 4
    assert srvd.ctl("scale", "many").returncode == 2
    assert srvd.names() == before


def test_misspelt_setting_in_the_config_file(starter: Starter) -> None:
    """Misspelt setting in the config file – dropped silently."""
    done = starter.new(config=toml("workers = 2\nrequest_timout = 3")).run()
    assert done.returncode == 78
    assert "srvd.toml:7" in done.stderr
    assert "request_timeout" in done.stderr


def test_scaling_up_while_workers_cannot_boot_restores_the_old_size(starter: Starter) -> None:
    """What `worker add` never told: the answer has the reason, and the old wish is in force again."""
    srvd = starter("--workers", "2", code=apps.good("one", apps.CRASH_IF_TOLD))
    (srvd.folder / "crash").touch()
    scale = srvd.ctl("scale", "4")
    assert scale.returncode == 1
    assert "exited with code 9" in scale.stderr
    assert "back to 2" in scale.stderr
    pool = srvd.pool()
    assert (pool["desired"], pool["serving"]) == (2, 2)
