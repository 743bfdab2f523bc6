"""Claims about applications that replace what srvd is made of: gevent and eventlet, the real packages, and others."""

from __future__ import annotations

import importlib.util

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import toml

pytestmark = pytest.mark.system

PATCHES = {
    "gevent": "from gevent import monkey\nmonkey.patch_all()\n",
    "eventlet": "import warnings\nwarnings.simplefilter('ignore')\nimport eventlet\neventlet.monkey_patch()\n",
}


@pytest.mark.parametrize("preload", ["auto", "off"])
@pytest.mark.parametrize("name", PATCHES)
def test_a_patched_application_is_refused_by_name_and_told_what_to_write(
    starter: Starter, name: str, preload: str
) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    srvd = starter.new(config=toml(f'preload = "{preload}"'), code=PATCHES[name] + apps.good())
    done = srvd.run()
    assert done.returncode == 1
    assert f"{name} has patched this process" in done.stderr
    assert "the pool's engine is threads; nothing was loaded" in done.stderr
    assert 'engine = "gevent"' in done.stderr
    assert "threads = 32" in done.stderr


@pytest.mark.parametrize("name", PATCHES)
def test_a_check_refuses_a_patched_application(starter: Starter, name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    srvd = starter.new(config=toml(), code=PATCHES[name] + apps.good())
    srvd.command[1:] = ["check", "-c", str(srvd.folder / "srvd.toml")]
    done = srvd.run()
    assert done.returncode != 0
    assert f"{name} has patched this process" in done.stdout + done.stderr
    assert "is good" not in done.stdout


def test_a_reload_into_a_patched_release_leaves_the_former_one_in_force(starter: Starter) -> None:
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent is not installed")
    srvd = starter()
    srvd.deploy(PATCHES["gevent"] + apps.good("two"))
    done = srvd.ctl("reload")
    assert done.returncode == 1
    assert "gevent has patched this process" in done.stderr
    assert srvd.get().startswith("one ")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("preload", ["auto", "off"])
def test_what_an_application_takes_out_of_select_srvd_has_already(starter: Starter, preload: str, threads: int) -> None:
    code = "import select\ndel select.epoll, select.poll\n" + apps.good()
    srvd = starter(config=toml(f'preload = "{preload}"\nthreads = {threads}'), code=code)
    assert srvd.get().startswith("one ")
    assert srvd.stop() == 0
