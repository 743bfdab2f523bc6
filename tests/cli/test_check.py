"""Claims about `srvd check`: it tells what a start would, with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from srvd.errors import EXIT
from tests.support.waiting import wait_for

SRVD = str(Path(sys.executable).with_name("srvd"))

GOOD = "def app(environ, start_response):\n    return []\n"


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SRVD_", "PORT", "WEB_"))}
    done = subprocess.run(
        [SRVD, "check", *arguments], cwd=folder, env=clean, capture_output=True, text=True, timeout=60
    )
    assert not zygotes_in(folder)
    return done


def zygotes_in(folder: Path) -> list[psutil.Process]:
    """Zygotes whose working directory this is: whatever the trial left behind."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder) and "srvd.zygote" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_good_application_is_loaded_and_nothing_else_happens(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(GOOD)
    done = check(tmp_path, "shop:app", "--workers", "8")
    assert (done.returncode, done.stderr) == (EXIT.DONE, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("pool web: shop:app was ready after ")
    assert first.endswith(" s; not probed: pools.web.health is not set")
    assert second == "the configuration is good: 1 pool (web) with 8 workers; ports were not tried"
    assert {entry.name for entry in tmp_path.iterdir()} <= {"shop.py", "__pycache__"}


def test_a_broken_application_is_1_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("print('from the shop')\nraise ValueError('boom')\n")
    done = check(tmp_path, "shop:app")
    assert (done.returncode, done.stdout) == (EXIT.FAILED, "")
    assert done.stderr.splitlines()[0] == "web | from the shop"
    assert "ValueError: boom" in done.stderr.splitlines()[1]
    assert f'File "{tmp_path}/shop.py", line 2, in <module>' in done.stderr


def test_every_pool_is_tried_although_the_first_fails(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(GOOD)
    (tmp_path / "srvd.toml").write_text(
        "[pools.a]\napp = 'none:app'\n[pools.b]\napp = 'shop:app'\n[pools.c]\napp = 'shop:no'"
    )
    done = check(tmp_path)
    assert done.returncode == EXIT.FAILED
    assert "No module named 'none'" in done.stderr
    assert "module shop has no 'no'" in done.stderr
    assert [line.split(" was ready")[0] for line in done.stdout.splitlines()] == ["pool b: shop:app"]


def test_an_application_that_hangs_shows_its_stack_and_is_ended(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "srvd.toml").write_text("[pools.web]\napp = 'shop:app'\nboot_timeout = '2s'\n")
    done = check(tmp_path)
    assert done.returncode == EXIT.FAILED
    assert f'web |   File "{tmp_path}/shop.py", line 2 in <module>' in done.stderr
    assert "was not loaded within 2 s" in done.stderr


def test_an_application_that_ends_the_process_has_failed(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import os\nos._exit(0)\n")
    done = check(tmp_path, "shop:app")
    assert done.returncode == EXIT.FAILED
    assert "the process ended while it was loaded (exit 0)" in done.stderr


def test_what_would_not_survive_a_fork_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True, name='mill').start()\n"
        + GOOD
    )
    done = check(tmp_path, "shop:app")
    assert done.returncode == EXIT.DONE
    assert "warning: pool web: loading shop:app left 1 thread (mill) behind" in done.stderr
    assert "each worker loads the application itself" in done.stderr  # what a start would do, preload = "auto"


def test_what_the_application_prints_cannot_command_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import sys\nsys.stderr.write('\\x1b]0;owned\\x07\\n')\n" + GOOD)
    done = check(tmp_path, "shop:app")
    assert done.stderr == "web | \\x1b]0;owned\\x07\n"


def test_interrupting_a_check_ends_the_application_too(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import pathlib, time\npathlib.Path('began').touch()\ntime.sleep(60)\n")
    with subprocess.Popen([SRVD, "check", "shop:app"], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_for((tmp_path / "began").exists)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == EXIT.INTERRUPTED
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert not zygotes_in(tmp_path)


@pytest.mark.parametrize("python", ["/bin/true", "/bin/false"])
def test_an_interpreter_that_is_none_is_told_as_a_failure(tmp_path: Path, python: str) -> None:
    (tmp_path / "srvd.toml").write_text(f"[pools.web]\napp = 'shop:app'\npython = '{python}'\n")
    done = check(tmp_path)
    assert done.returncode == EXIT.FAILED
    assert "the process ended while it was loaded" in done.stderr


def test_what_a_start_would_refuse_a_check_refuses_with_the_same_code(tmp_path: Path) -> None:
    """A health probe that fails, a worker that cannot boot, a zygote that ends after loading, files of the daemon."""
    (tmp_path / "shop.py").write_text(
        "def app(environ, start):\n    start('404 Not Found', [])\n    return [b'']\n"
        "def fine(environ, start):\n    start('200 OK', [])\n    return [b'']\n"
    )
    (tmp_path / "dies.py").write_text(
        "import os\nos.register_at_fork(before=lambda: os._exit(3))\nfrom shop import fine as app\n"
    )
    (tmp_path / "hooked.py").write_text("def on_worker_start(worker):\n    import os\n    os._exit(5)\n")
    pool = "[listeners.web]\nbind = ['127.0.0.1:0']\n[pools.web]\n"
    for config, code, told in (
        (f"{pool}app = 'shop:app'\nhealth = '/h'\nhealth_timeout = '1s'\n", EXIT.FAILED, "GET /h: 404"),
        (f"{pool}app = 'shop:fine'\nhooks = 'hooked'\n", EXIT.FAILED, "exited with code 5"),
        (f"{pool}app = 'dies:app'\npreload = 'on'\n", EXIT.FAILED, "the zygote died (exit 3)"),
        (
            f"{pool}app = 'shop:fine'\n[daemon]\nlog_file = 'none/x.log'\n",
            EXIT.SYSTEM,
            f"no folder {tmp_path}/none",
        ),
        (
            f"{pool}app = 'shop:fine'\n[daemon]\npidfile = 'none/x.pid'\n",
            EXIT.SYSTEM,
            f"no folder {tmp_path}/none",
        ),
    ):
        (tmp_path / "srvd.toml").write_text(config)
        done = check(tmp_path)
        assert (done.returncode, "is good" in done.stdout) == (code, False), (config, done)
        assert told in done.stderr
        assert "srvctl" not in done.stderr, "there is no daemon to ask"
        start = subprocess.run([SRVD, "start", "-n", "trial"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert start.returncode == code, (config, start.stderr)
        assert told in start.stderr


def test_a_probe_that_is_answered_is_said(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("def app(environ, start):\n    start('200 OK', [])\n    return [b'']\n")
    (tmp_path / "srvd.toml").write_text("[pools.web]\napp = 'shop:app'\nhealth = '/h'\nworkers = 1\n")
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (EXIT.DONE, "")
    assert done.stdout.splitlines()[0].endswith(" s; GET /h was healthy")


def test_a_failed_probe_sends_no_reader_to_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    app = "def app(environ, start):\n    raise ImportError('no stripe')\n"
    (tmp_path / "shop.py").write_text(app)
    (tmp_path / "srvd.toml").write_text("[pools.web]\napp = 'shop:app'\nhealth = '/h'\nworkers = 1\n")
    done = check(tmp_path)
    assert done.returncode == EXIT.FAILED
    assert "ImportError: no stripe" in done.stderr
    assert "srvctl" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_access_log_that_the_pools_user_cannot_write_is_told(open_folder: Path) -> None:
    (open_folder / "shop.py").write_text(GOOD)
    (open_folder / "srvd.toml").write_text(
        "[pools.web]\napp = 'shop:app'\nuser = 'nobody'\naccess_log = 'access.log'\n"
    )
    done = check(open_folder)
    assert done.returncode == EXIT.DONE
    assert f"warning: web: open the access log {open_folder}/access.log: Permission denied" in done.stderr
