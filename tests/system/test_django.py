"""Django, whose views are imported by the first request elsewhere: releases that break, and the way back from them."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import Starter
from tests.support.apps import django_project
from tests.support.daemon import Srvd, toml
from tests.support.load import Load

pytestmark = pytest.mark.system

PROJECT = 'app = "shop.wsgi:application"\nworkers = 4\n'
REQUESTS = 350
"""Of each of the three times at which none may fail: before, during and after."""

KINDS = [
    pytest.param('health = "/"\n', id="probed"),
    pytest.param("", id="without a health path"),
    pytest.param('health = "/"\npreload = "on"\n', id="preload on"),
]


def _config(pool: str) -> str:
    return toml(pool).replace('app = "app:app"\n', "")


def _start(starter: Starter, pool: str) -> Srvd:
    srvd = starter.new(config=_config(PROJECT + pool))
    django_project.deploy(srvd.folder, "one")
    return srvd.start()


def _more(load: Load) -> None:
    for _ in range(REQUESTS // 50):
        load.more(50)
    assert load.failed == []


@pytest.mark.parametrize("pool", KINDS)
def test_a_broken_view_ends_a_reload_at_the_load_and_costs_no_request(starter: Starter, pool: str) -> None:
    """The broken file lies on disk, and workers that are new get what the zygote has."""
    srvd = _start(starter, pool)
    with srvd.under_load() as load:
        _more(load)
        django_project.deploy(srvd.folder, "two", broken=True)
        victim = srvd.kill_worker()
        srvd.wait_serving(4, without=victim)
        load.more()
        load.failed.clear()  # of the one that was killed
        done = srvd.ctl("reload")
        assert done.returncode == 1
        assert "def broken(:" in done.stderr
        assert "SyntaxError" in done.stderr
        assert "(step: load)" in done.stderr
        _more(load)
        assert srvd.ctl("recycle").returncode == 0
        assert srvd.ctl("scale", "+1").returncode == 0
        _more(load)
    assert load.failed == []
    assert load.releases == {"one"}


@pytest.mark.parametrize("pool", KINDS)
def test_a_rollback_serves_the_former_release_whatever_lies_on_disk(starter: Starter, pool: str) -> None:
    srvd = _start(starter, pool)
    django_project.deploy(srvd.folder, "two")
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get().startswith("two ")
    django_project.deploy(srvd.folder, "three", broken=True)
    assert srvd.ctl("rollback").returncode == 0
    for name in srvd.names():
        os.kill(next(one["pid"] for one in srvd.serving() if one["id"] == name), signal.SIGKILL)
        srvd.wait_serving(4, without=name)
    with srvd.under_load() as load:
        assert srvd.ctl("recycle").returncode == 0
        assert srvd.ctl("scale", "+1").returncode == 0
        _more(load)
    assert load.failed == []
    assert load.releases == {"one"}


def test_views_that_are_imported_within_a_view_roll_back_if_their_path_is_warmed(starter: Starter) -> None:
    srvd = _start(starter, 'health = "/"\nwarm = ["/late"]\n')
    django_project.deploy(srvd.folder, "two")
    assert srvd.ctl("reload").returncode == 0
    assert srvd.ctl("rollback").returncode == 0
    with srvd.under_load(path="/late") as load:
        assert srvd.ctl("recycle").returncode == 0
        _more(load)
    assert load.releases == {"one"}
    assert srvd.pool()["mixed"] == ""


def test_a_view_that_is_imported_later_than_the_probe_is_told_as_code_of_two_releases(starter: Starter) -> None:
    srvd = _start(starter, 'health = "/"\n')
    django_project.deploy(srvd.folder, "two")
    assert srvd.get("/late").startswith("two ")  # what is not promised
    srvd.wait_logged("web@1 now has code of two releases: shop/later.py")
    assert srvd.pool()["mixed"] == "shop/later.py"


def test_without_preloading_a_broken_view_keeps_new_workers_from_getting_ready_and_old_ones_serve(
    starter: Starter,
) -> None:
    """Each new worker reads what is on disk; one that cannot serve it never does."""
    srvd = _start(starter, 'health = "/"\npreload = "off"\n')
    with srvd.under_load() as load:
        _more(load)
        django_project.deploy(srvd.folder, "two", broken=True)
        done = srvd.ctl("reload")
        assert done.returncode == 1
        assert "SyntaxError" in done.stderr
        assert "(step: canary)" in done.stderr
        assert srvd.ctl("recycle").returncode != 0
        _more(load)
    assert load.failed == []
    assert load.releases == {"one"}
    srvd.wait_serving(4)
