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
from tests.support import wait_for

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
    assert first.startswith("pool web: shop:app loaded in ")
    assert second == "the configuration is good: 1 pool (web) with 8 workers"
    assert {entry.name for entry in tmp_path.iterdir()} <= {"shop.py", "__pycache__"}


def test_a_broken_application_is_1_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("print('from the shop')\nraise ValueError('boom')\n")
    done = check(tmp_path, "shop:app")
    assert (done.returncode, done.stdout) == (EXIT.FAILED, "from the shop\n")
    assert "ValueError: boom" in done.stderr.splitlines()[0]
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
    assert [line.split(" loaded")[0] for line in done.stdout.splitlines()] == ["pool b: shop:app"]


def test_an_application_that_hangs_shows_its_stack_and_is_ended(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "srvd.toml").write_text("[pools.web]\napp = 'shop:app'\nboot_timeout = '300ms'\n")
    done = check(tmp_path)
    assert done.returncode == EXIT.FAILED
    assert f'web |   File "{tmp_path}/shop.py", line 2 in <module>' in done.stderr
    assert "not done after 0.3 s (boot_timeout)" in done.stderr


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
