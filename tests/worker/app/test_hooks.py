"""Claims about server hooks: when each is called, with what, and that no error in one harms anything else."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from srvd.errors import LoadFailed
from srvd.log import Log
from srvd.wire import links
from srvd.worker.app.hooks import Hooks, find
from srvd.worker.wsgi.application import with_before_request
from tests.conftest import Starter
from tests.support.daemon import toml
from tests.support.waiting import wait_for
from tests.support.worker_rig import Rig

HOOKS = """
import os
def say(text):
    os.write(2, ("hook " + text + chr(10)).encode())
say("imported")
def on_fork(worker):
    say(f"fork {worker}")
def on_worker_start(worker):
    say(f"start {worker}")
def on_worker_stop(worker):
    say(f"stop {worker}")
def before_request(environ):
    say("before " + environ["PATH_INFO"])
    environ["hooked"] = "yes"
def after_request(environ, status, sent, seconds):
    say(f"after {environ['hooked']} {status} {sent} {0 <= seconds < 5}")
"""

BAD_HOOKS = """
import sys
def on_fork(worker): raise ValueError("fork fails")
def on_worker_start(worker): raise ValueError("start fails")
def on_worker_stop(worker): raise ValueError("stop fails")
def before_request(environ): sys.exit("before fails")
def after_request(environ, status, sent, seconds): sent + "text"
def on_worker_strat(worker): "never called"
def before_everything(): "never called"
def post_fork(server, worker): "of another server"
def when_ready(server): "of another server"
"""


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(environ.get("hooked", "no")).encode()]


def said(text: str) -> list[str]:
    return [line.partition("hook ")[2] for line in text.splitlines() if "hook " in line]


def module(source: str) -> ModuleType:
    made = ModuleType("shop_hooks")
    exec(compile(source, "shop_hooks.py", "exec"), made.__dict__)
    return made


def test_each_hook_is_called_at_its_time_with_its_arguments(starter: Starter) -> None:
    srvd = starter.new(config=toml('hooks = "shop_hooks"\nworkers = 1\nhealth = "/healthz"'))
    srvd.deploy(HOOKS, "shop_hooks")
    srvd.start()
    srvd.get("/one")
    srvd.call("recycle")
    assert srvd.logged().count("hook imported") == 1  # in the zygote
    wait_for(lambda: "hook stop web/1#1" in srvd.logged())
    lines = said(srvd.logged())
    assert lines[:4] == ["imported", "fork web/1#1", "start web/1#1", "before /one"]  # and the probe is no request
    assert lines[4].startswith("after yes 200 ")
    assert lines[4].endswith(" True")
    assert {"fork web/1#2", "start web/1#2"} <= set(lines)
    assert lines.index("start web/1#2") < lines.index("stop web/1#1")


@pytest.mark.parametrize("first", [False, True])
def test_without_preloading_each_worker_loads_its_hooks_and_calls_all_of_them(starter: Starter, first: bool) -> None:
    srvd = starter.new(
        config=toml(f'hooks = "shop_hooks"\nhooks_first = {str(first).lower()}\npreload = "off"\nworkers = 1')
    )
    srvd.deploy(HOOKS, "shop_hooks")
    srvd.good(before="import os; os.write(2, b'hook application\\n')")
    srvd.start()
    srvd.get("/one")
    wait_for(lambda: "after yes 200" in srvd.logged())
    loaded = [line for line in said(srvd.logged()) if line in ORDER]
    both = ["imported", "fork web/1#1", "application"] if first else ["application", "imported", "fork web/1#1"]
    assert loaded == [*both, "start web/1#1"]


ORDER = ("imported", "fork web/1#1", "application", "start web/1#1")


def test_hooks_may_be_loaded_before_a_preloaded_application(starter: Starter) -> None:
    srvd = starter.new(config=toml('hooks = "shop_hooks"\nhooks_first = true\nworkers = 1'))
    srvd.deploy(HOOKS, "shop_hooks")
    srvd.good(before="import os; os.write(2, b'hook application\\n')")
    srvd.start()
    lines = [line for line in said(srvd.logged()) if line in ORDER]
    assert lines == ["imported", "application", "fork web/1#1", "start web/1#1"]


GONE = """
import os, time
def on_worker_gone(worker, pid, reason):
    os.write(2, f"hook gone {worker} {pid} {reason} {os.getpid() != pid}\\n".encode())
    if os.path.exists("hang"):
        time.sleep(600)
"""


@pytest.mark.parametrize("preload", ["on", "off"])
def test_every_end_of_a_worker_is_told_to_a_hook_in_a_process_of_its_own(starter: Starter, preload: str) -> None:
    srvd = starter.new(config=toml(f'hooks = "gone_hooks"\npreload = "{preload}"'))
    srvd.deploy(GONE, "gone_hooks")
    srvd.start()
    pids = {str(worker["id"]): worker["pid"] for worker in srvd.serving()}
    killed = srvd.kill_worker()
    srvd.wait_logged(f"hook gone {killed} {pids[killed]} signal 9 True")
    srvd.wait_serving(2, without=killed)
    (other,) = set(pids) - {killed}
    srvd.call("recycle")
    srvd.wait_logged(f"hook gone {other} {pids[other]} exit 0 True")
    assert srvd.stop() == 0
    assert srvd.logged().count("hook gone ") == 5


def test_a_hook_that_hangs_after_the_end_of_a_worker_holds_up_nothing_and_is_ended(
    starter: Starter,
) -> None:
    srvd = starter.new(config=toml('hooks = "gone_hooks"\nworkers = 1'))
    srvd.deploy(GONE, "gone_hooks")
    srvd.start()
    (srvd.folder / "hang").touch()
    killed = srvd.kill_worker()
    srvd.wait_serving(1, without=killed)
    srvd.wait_logged("the hook on_worker_gone took longer than 5 s and was ended")
    (srvd.folder / "hang").unlink()


def test_an_imported_hook_of_gunicorn_is_told() -> None:
    source = "from os.path import exists as child_exit\npost_worker_init = 'run.it'\nwhen_ready = None"
    assert find(module(source), "shop_hooks").warnings == [
        "hooks shop_hooks: child_exit is no hook and is never called; did you mean on_worker_gone?",
        "hooks shop_hooks: post_worker_init is no hook and is never called; did you mean on_worker_start?",
    ]


def test_an_error_in_a_hook_is_logged_with_its_name_and_breaks_nothing(starter: Starter) -> None:
    srvd = starter.new(config=toml('hooks = "bad_hooks"\nworkers = 1'))
    srvd.deploy(BAD_HOOKS, "bad_hooks")
    srvd.start()
    for _ in range(3):
        assert srvd.get("/").startswith("one ")
    srvd.call("recycle")
    names = ("on_fork", "on_worker_start", "before_request", "after_request", "on_worker_stop")
    for name in names:
        srvd.wait_logged(f"the hook {name} failed")
    for reason in ("ValueError: fork fails", "SystemExit: before fails", "TypeError: unsupported operand"):
        srvd.wait_logged(reason)
    assert len(srvd.serving()) == 1


def test_a_name_that_looks_like_a_hook_and_is_none_is_told_with_what_was_meant(starter: Starter) -> None:
    srvd = starter.new(config=toml('hooks = "bad_hooks"\nworkers = 1'))
    srvd.deploy(BAD_HOOKS, "bad_hooks")
    srvd.start()
    srvd.wait_logged("hooks bad_hooks: on_worker_strat is no hook and is never called; did you mean on_worker_start?")
    srvd.wait_logged("hooks bad_hooks: before_everything is no hook and is never called")
    srvd.wait_logged("hooks bad_hooks: post_fork is no hook and is never called; did you mean on_fork?")
    srvd.wait_logged("hooks bad_hooks: when_ready is no hook and is never called; there are on_fork, ")


def test_hooks_that_cannot_be_imported_keep_the_old_generation(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"))
    srvd.configure(toml('hooks = "no_such_hooks"\nworkers = 1'))
    done = srvd.ctl("reload")
    assert done.returncode == 1
    assert "No module named 'no_such_hooks'" in done.stderr
    assert srvd.get("/").startswith("one web/1#1 ")


def test_a_pool_that_is_named_with_an_impossible_module_is_refused_by_the_check(
    tmp_path: Path, starter: Starter
) -> None:
    srvd = starter.new(config=toml('hooks = "shop/hooks.py"'))
    done = srvd.run()
    assert done.returncode == 78
    assert 'nearest: "shop.hooks"' in done.stderr or '"shop.hooks"' in done.stderr


def test_what_cannot_be_called_is_no_hook() -> None:
    with pytest.raises(LoadFailed, match="before_request is int, which cannot be called"):
        find(module("before_request = 3"), "shop_hooks")


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        ("def on_fork(server, worker): pass", False),  # as gunicorn calls it
        ("def on_fork(): pass", False),
        ("def on_fork(worker, log=None): pass", True),
        ("def on_fork(*everything): pass", True),
        ("from functools import partial\non_fork = partial(print, 'forked')", True),
        ("def after_request(environ, status): pass", False),
        ("def after_request(environ, status, sent, seconds): pass", True),
    ],
)
def test_a_hook_that_cannot_take_its_arguments_is_told_before_it_is_called(source: str, fits: bool) -> None:
    if fits:
        assert any(find(module(source), "shop_hooks").hooks)
        return
    with pytest.raises(LoadFailed, match="does not take the arguments that it is called with") as refused:
        find(module(source), "shop_hooks")
    assert refused.value.hint in ("def on_fork(worker):", "def after_request(environ, status, sent, seconds):")


def test_imported_functions_and_other_names_are_no_slip() -> None:
    source = "from os.path import exists as on_disk\non_call = 3\ndef helper(): pass\n__name__ = 'shop_hooks'"
    assert find(module(source), "shop_hooks").warnings == []


def test_a_module_without_hooks_costs_nothing() -> None:
    found = find(module(""), "shop_hooks")
    assert found.hooks == Hooks()
    assert with_before_request(app, found.hooks.before_request, Log(2)) is app


def test_hooks_of_a_rig_run_around_the_application(tmp_path: Path) -> None:
    """With a worker that was not made by a zygote: nothing is preloaded, and `hooks` names a module."""
    (tmp_path / "rig_hooks.py").write_text(HOOKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        with Rig(app, tmp_path, hooks="rig_hooks") as rig:
            assert rig.serving().get("/x").body == b"yes"
            rig.drain()
            assert rig.says(links.Bye)
            assert rig.wait() == 0
            assert said(rig.log()) == [
                "imported",
                "fork web/1#3",
                "start web/1#3",
                "before /x",
                "after yes 200 3 True",
                "stop web/1#3",
            ]
