"""Claims about `wrap`: a program in front of the application's interpreter, and of nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from srvd.config.check import find_wrapper
from srvd.errors import EXIT
from tests.conftest import Starter
from tests.support.daemon import toml

WRAPPER = f"""#!{sys.executable}
import os, sys
# As programs do that instrument an application: a sitecustomize, and the words after its own.
os.environ["PYTHONPATH"] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site")
os.environ["WRAPPED"] = sys.argv[1]
os.execvp(sys.argv[2], sys.argv[2:])
"""

AGENT = """
import os, threading
os.environ["AGENT"] = "seen"
threading.Thread(target=threading.Event().wait, name="agent", daemon=True).start()
"""

APP = """
import os, threading
def app(environ, start_response):
    start_response("200 OK", [])
    names = sorted(thread.name for thread in threading.enumerate())
    return [f"{os.environ.get('WRAPPED')} {os.environ.get('AGENT')} {'agent' in names}".encode()]
"""


def deploy(folder: Path) -> None:
    (folder / "wrapper").write_text(WRAPPER)
    (folder / "wrapper").chmod(0o755)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(AGENT)


def test_a_wrapper_is_in_front_of_the_application_and_not_of_the_daemon(starter: Starter) -> None:
    srvd = starter.new(code=APP, config="# later")
    deploy(srvd.folder)
    srvd.configure(toml(f'workers = 1\nwrap = ["{srvd.folder}/wrapper", "fast"]'))
    srvd.start()
    assert srvd.get("/") == "fast seen True"
    assert len(os.listdir(f"/proc/{srvd.pid}/task")) == 1
    assert b"WRAPPED" not in Path(f"/proc/{srvd.pid}/environ").read_bytes()
    killed = srvd.kill_worker()
    srvd.wait_serving(1, without=killed)
    assert srvd.get("/") == "fast seen True"
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get("/") == "fast seen True"


def test_a_wrapper_that_is_not_there_is_refused(starter: Starter) -> None:
    done = starter.new(config=toml('wrap = ["no-such-wrapper"]')).run()
    assert done.returncode == EXIT.CONFIG
    assert 'pools.web.wrap: found "no-such-wrapper", expected a program that exists' in done.stderr


def test_a_program_in_front_of_the_daemon_is_told_of(starter: Starter) -> None:
    srvd = starter.new()
    deploy(srvd.folder)
    srvd.env["PYTHONPATH"] = str(srvd.folder / "site")
    srvd.start()
    srvd.wait_logged("the start of the interpreter has left 1 thread in the daemon")


def test_a_wrapper_is_looked_for_beside_the_interpreter_first(tmp_path: Path) -> None:
    for folder in ("venv", "usr"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ddtrace-run").touch(0o755)
    python, environ = str(tmp_path / "venv" / "python"), {"PATH": str(tmp_path / "usr")}
    assert find_wrapper(["ddtrace-run", "x"], python, environ) == (str(tmp_path / "venv" / "ddtrace-run"), "x")
    (tmp_path / "venv" / "ddtrace-run").unlink()
    assert find_wrapper(["ddtrace-run"], python, environ) == (str(tmp_path / "usr" / "ddtrace-run"),)
    assert find_wrapper(["/bin/x"], python, environ) == ("/bin/x",)
