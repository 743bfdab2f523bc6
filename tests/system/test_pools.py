"""What a pool's settings make of its processes: who runs it, where, with which interpreter; and several pools."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, free_port, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

ROOT = os.geteuid() == 0

TELLS = """
import os, sys
def app(environ, start_response):
    mask = os.umask(0)
    os.umask(mask)
    facts = {"uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "umask": oct(mask),
             "cwd": os.getcwd(), "colour": os.environ.get("COLOUR"), "path": sys.path, "prefix": sys.prefix,
             "version": sys.version_info[:2], "notify": os.environ.get("NOTIFY_SOCKET"), "threads": THREADS}
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(facts).encode()]
THREADS = 0
"""


def _refuses(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def _facts(srvd: Srvd) -> dict[str, object]:
    facts: dict[str, object] = eval(srvd.get())
    return facts


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_pool_runs_as_another_user(starter: Starter) -> None:
    user, group = pwd.getpwnam("daemon"), grp.getgrnam("games")
    srvd = starter.new(config=toml('workers = 1\nuser = "daemon"\ngroup = "games"\numask = "027"'), code=TELLS)
    srvd.let_others_in()
    facts = _facts(srvd.start())
    assert facts["uids"] == (user.pw_uid,) * 3
    assert facts["gids"] == (group.gr_gid,) * 3
    assert set(facts["groups"]) <= set(os.getgrouplist("daemon", group.gr_gid))  # type: ignore[call-overload]
    assert facts["umask"] == "0o27"
    assert psutil.Process(srvd.pid).uids().real == 0
    assert srvd.call("reload")["operation"]["state"] == "done"
    assert _facts(srvd)["uids"] == (user.pw_uid,) * 3


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_the_user_of_a_pool_loads_its_application(starter: Starter) -> None:
    """None of its code runs as root, not even what is executed at import."""
    seen = "import os, sys\nsys.stderr.write(f'loaded by {os.getuid()}\\n')\n"
    srvd = starter.new(config=toml('workers = 1\nuser = "daemon"'), code=seen + TELLS)
    srvd.let_others_in()
    srvd.start()
    srvd.wait_logged(f"loaded by {pwd.getpwnam('daemon').pw_uid}")
    assert "loaded by 0" not in srvd.logged()


@pytest.mark.skipif(not ROOT, reason="only root can become another user")
def test_a_user_that_is_not_there_is_refused(starter: Starter) -> None:
    done = starter.new(config=toml('user = "daemno"')).run()
    assert done.returncode == 78
    assert "daemon" in done.stderr


def test_folder_environment_and_path_of_a_pool(starter: Starter) -> None:
    srvd = starter.new(config=toml('workers = 1\nchdir = "there"\npythonpath = ["lib"]\nenv = { COLOUR = "blue" }'))
    (srvd.folder / "there").mkdir()
    (srvd.folder / "lib").mkdir()
    srvd.deploy(TELLS, "there/app")
    srvd.deploy("x = 1", "lib/extra")
    srvd.env["NOTIFY_SOCKET"] = "/nowhere"
    (srvd.folder / "app.py").unlink()
    srvd.start()
    facts = _facts(srvd)
    assert facts["cwd"] == str(srvd.folder / "there")
    assert facts["path"][:2] == [str(srvd.folder / "there"), str(srvd.folder / "lib")]  # type: ignore[index]
    assert facts["colour"] == "blue"
    assert facts["notify"] is None  # what an init system told the daemon is not the application's


def test_a_reload_takes_over_new_settings_of_a_pool(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\nenv = { COLOUR = "blue" }'), code=TELLS)
    assert _facts(srvd)["colour"] == "blue"
    srvd.configure(toml('workers = 3\nenv = { COLOUR = "vermilion" }'))
    assert srvd.ctl("reload").returncode == 0
    assert _facts(srvd)["colour"] == "vermilion"
    assert len(srvd.serving()) == 3
    assert "vermilion" not in srvd.ctl("config").stdout  # env may hold secrets


# -- preload ------------------------------------------------------------------------------------------------------

WITH_THREAD = (
    TELLS
    + """
import threading
threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
THREADS = threading.active_count()
"""
)


@pytest.mark.parametrize(("preload", "preloaded"), [("auto", False), ("on", True), ("off", False)])
def test_an_application_that_starts_a_thread(starter: Starter, preload: str, preloaded: bool) -> None:
    """auto: named in a warning, and each worker loads the application itself; on: warned of what workers will lack."""
    srvd = starter(config=toml(f'workers = 2\npreload = "{preload}"'), code=WITH_THREAD)
    assert srvd.pool()["preloaded"] is preloaded
    log = srvd.logged()
    assert ("poller" in log) is (preload != "off")
    assert _facts(srvd)["threads"] == 2
    threads = psutil.Process(srvd.serving()[0]["pid"]).num_threads()
    assert threads == (1 if preloaded else 2)
    assert srvd.ctl("reload").returncode == 0
    assert srvd.pool()["generation"] == 2
    victim = srvd.kill_worker()
    srvd.wait_serving(2, without=victim)


@pytest.mark.parametrize(("preload", "preloaded"), [("auto", True), ("on", True), ("off", False)])
def test_an_application_without_threads(starter: Starter, preload: str, preloaded: bool) -> None:
    srvd = starter(config=toml(f'workers = 2\npreload = "{preload}"'))
    assert srvd.pool()["preloaded"] is preloaded
    warnings = [line for line in srvd.logged().splitlines() if " WARN " in line]
    # Not about the application: as root, where the tests run as root.
    assert [line for line in warnings if "pool web runs as root" not in line] == []
    assert srvd.get().startswith("one ")


# -- the interpreter ----------------------------------------------------------------------------------------------


def test_a_pool_runs_with_an_interpreter_of_its_own(starter: Starter) -> None:
    """A reload changes the environment of the application, and the daemon stays."""
    other = _venv(starter.folder / "venv")
    srvd = starter(config=toml("workers = 1"), code=TELLS)
    assert _facts(srvd)["prefix"] == sys.prefix
    pid = srvd.pid
    srvd.configure(toml(f'workers = 1\npython = "{other}"'))
    assert srvd.ctl("reload").returncode == 0
    assert _facts(srvd)["prefix"] == str(starter.folder / "venv")
    assert srvd.status()["daemon"]["pid"] == pid


def test_an_interpreter_without_srvd_is_explained(starter: Starter) -> None:
    bare = starter.folder / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60)
    srvd = starter(config=toml("workers = 1"))
    srvd.configure(toml(f'workers = 1\npython = "{bare}/bin/python"\nenv = {{ PYTHONPATH = "" }}'))
    reload = srvd.ctl("reload")
    assert reload.returncode == 1
    assert "srvd is not installed there" in reload.stderr
    assert srvd.get().startswith("one ")


def test_an_interpreter_that_is_not_there_is_refused(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"))
    srvd.configure(toml('workers = 1\npython = "/nowhere/python"'))
    assert srvd.ctl("reload").returncode == 78
    assert srvd.get().startswith("one ")


def _venv(folder: Path) -> Path:
    """Another environment that has what the tests' own has."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    (site,) = folder.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if path.endswith(("site-packages", "src"))]
    (site / "others.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in paths))
    return folder / "bin" / "python"


# -- several pools ------------------------------------------------------------------------------------------------


def _two(ports: tuple[int, int]) -> str:
    return _pool("web", ports[0]) + _pool("api", ports[1])


def _pool(name: str, port: int) -> str:
    return (
        f'[listeners.{name}]\nbind = ["127.0.0.1:{port}"]\n'
        f'[pools.{name}]\napp = "{name}:app"\nlisteners = ["{name}"]\nworkers = 2\n'
    )


def _deploy_two(srvd: Srvd) -> None:
    srvd.deploy(apps.good("web"), "web")
    srvd.deploy(apps.good("api"), "api")


def test_two_pools_live_on_their_own(starter: Starter) -> None:
    srvd = starter.new(config=_two((free_port(), free_port())))
    _deploy_two(srvd)
    srvd.start()
    assert srvd.get().startswith("web web/1#")
    assert srvd.get(listener="api").startswith("api api/1#")
    assert srvd.ctl("scale", "4").returncode == 2  # of which?
    assert srvd.ctl("scale", "3", "api").returncode == 0
    srvd.deploy(apps.good("new"), "api")
    assert srvd.ctl("reload", "api").returncode == 0
    assert (srvd.pool("web")["generation"], srvd.pool("api")["generation"]) == (1, 2)
    assert srvd.get(listener="api").startswith("new ")
    assert (len(srvd.serving("web")), len(srvd.serving("api"))) == (2, 3)


def test_a_reload_of_two_pools_commits_both_or_none(starter: Starter) -> None:
    srvd = starter.new(config=_two((free_port(), free_port())))
    _deploy_two(srvd)
    srvd.start()
    srvd.deploy(apps.good("new"), "web")
    srvd.deploy(apps.BROKEN["raises at import"], "api")
    reload = srvd.ctl("reload")
    assert reload.returncode == 1
    assert "the deploy is broken" in reload.stderr
    assert srvd.get().startswith("web web/1#")
    assert srvd.get(listener="api").startswith("api api/1#")
    srvd.deploy(apps.good("new"), "api")
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get().startswith("new web/")
    assert srvd.get(listener="api").startswith("new api/")


def test_a_reload_adds_and_removes_a_pool_and_its_listener(starter: Starter) -> None:
    ports = free_port(), free_port()
    srvd = starter.new(config=_pool("web", ports[0]))
    _deploy_two(srvd)
    srvd.start()
    assert _refuses(ports[1])
    srvd.configure(_two(ports))
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get(listener="api").startswith("api api/1#")
    assert srvd.get().startswith("web web/2#")
    srvd.configure(_pool("web", ports[0]))
    with srvd.under_load(2) as load:
        assert srvd.ctl("reload").returncode == 0
        wait_for(lambda: [pool["name"] for pool in srvd.status()["pools"]] == ["web"])
    assert load.failed == []
    wait_for(lambda: _refuses(ports[1]))  # the last process of the pool may still be ending
    assert [entry["name"] for entry in srvd.status()["listeners"]] == ["web"]


def test_a_pool_whose_addition_fails_leaves_no_trace(starter: Starter) -> None:
    ports = free_port(), free_port()
    srvd = starter.new(config=_pool("web", ports[0]))
    _deploy_two(srvd)
    srvd.start()
    srvd.deploy(apps.BROKEN["raises at import"], "api")
    srvd.configure(_two(ports))
    assert srvd.ctl("reload").returncode == 1
    wait_for(lambda: [pool["name"] for pool in srvd.status()["pools"]] == ["web"])
    wait_for(lambda: _refuses(ports[1]))  # a process that was given the listener may still be ending
    assert srvd.get().startswith("web web/1#")


def test_a_reload_moves_a_listener_to_another_port(starter: Starter) -> None:
    old, new = free_port(), free_port()
    srvd = starter.new(config=_pool("web", old))
    _deploy_two(srvd)
    srvd.start()
    assert srvd.get().startswith("web ")
    srvd.configure(_pool("web", new))
    assert srvd.ctl("reload").returncode == 0
    with socket.create_connection(("127.0.0.1", new), timeout=20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", old), timeout=5)
    assert srvd.ctl("rollback").returncode == 0
    assert srvd.get().startswith("web ")
