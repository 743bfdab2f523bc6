"""Rows of the rival's table: bad code on disk, and what a reload, a death or a scale order then makes of it.

The docstrings quote the row: the scenario – what gunicorn 27.0.1 was seen to do.
"""

from __future__ import annotations

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import toml

pytestmark = pytest.mark.system

KINDS = list(apps.BROKEN)


@pytest.mark.parametrize("kind", KINDS)
def test_reload_while_the_code_on_disk_is_broken(starter: Starter, kind: str) -> None:
    """Reload while the code on disk raises at import – all dead 0.7 s later; its ctl said "reloading", exit 0."""
    srvd = starter(config=toml('workers = 4\nboot_timeout = "2s"'))
    before = srvd.names()
    with srvd.under_load() as load:
        srvd.deploy(apps.BROKEN[kind])
        reload = srvd.ctl("reload")
        assert srvd.names() == before
    assert load.failed == []
    assert reload.returncode == 1
    assert apps.REASON[kind] in reload.stderr
    assert apps.PROOF[kind] in reload.stderr
    assert srvd.names() == before
    assert srvd.pool()["generation"] == 1
    assert srvd.ctl("status").returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_dies_or_scale_up_while_the_code_on_disk_is_broken(starter: Starter, kind: str) -> None:
    """A worker dies, or scale up, while the code on disk is broken – whole server dead in 0.54 s."""
    srvd = starter("--workers", "4")
    with srvd.under_load() as load:
        srvd.deploy(apps.BROKEN[kind])
        victim = srvd.kill_worker()
        srvd.wait_serving(4, without=victim)
        assert srvd.ctl("scale", "8").returncode == 0
        assert len(srvd.serving()) == 8
    assert [failure for failure in load.failed if failure.holder != victim] == []  # only its own clients saw it go
    assert load.releases == {"one"}
    assert {worker["generation"] for worker in srvd.serving()} == {1}
    assert srvd.pool()["state"] == "ready"
