"""Claims about the user of a pool: what follows it, and what is said where it may not read."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys

import pytest

from tests.conftest import Starter
from tests.support.daemon import toml

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")]

CODE = """
import os
def app(environ, start_response):
    body = " ".join(os.environ.get(name, "-") for name in ("HOME", "USER", "LOGNAME")).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
NOBODY = pwd.getpwnam("nobody")


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ('user = "nobody"', f"{NOBODY.pw_dir} nobody nobody"),
        (f'user = "{NOBODY.pw_uid}"', f"{NOBODY.pw_dir} nobody nobody"),
        ('user = "31999"\ngroup = "nogroup"', "/ 31999 31999"),
        ('user = "nobody"\nenv = { HOME = "/srv" }', "/srv nobody nobody"),
        ('user = "nobody"\npreload = "off"', f"{NOBODY.pw_dir} nobody nobody"),
    ],
)
def test_home_and_names_in_the_environment_follow_the_user(starter: Starter, pool: str, expected: str) -> None:
    srvd = starter.new(config=toml(pool), code=CODE)
    srvd.let_others_in()
    assert srvd.start().get() == expected


def test_without_a_user_the_environment_is_the_daemons(starter: Starter) -> None:
    srvd = starter(config=toml(), code=CODE, env={"HOME": "/somewhere", "USER": "me", "LOGNAME": "me"})
    assert srvd.get() == "/somewhere me me"


def test_an_import_that_fails_since_the_user_may_not_read_names_the_folder(starter: Starter) -> None:
    """Python says that there is no such module."""
    srvd = starter.new(config=toml('user = "nobody"\npythonpath = ["closed/lib"]'), code=f"import tools\n{CODE}")
    srvd.let_others_in()
    (srvd.folder / "closed" / "lib").mkdir(parents=True)
    (srvd.folder / "closed" / "lib" / "tools.py").write_text("")
    (srvd.folder / "closed").chmod(0o700)
    done = srvd.run()
    assert done.returncode == 1
    assert "No module named 'tools'" in done.stderr
    assert f"uid {NOBODY.pw_uid} may not enter " in done.stderr
    if _is_open(os.__file__):  # else Python itself is named, which is right as well
        assert f"may not enter {srvd.folder / 'closed'}, which is on the way to" in done.stderr


def test_an_interpreter_that_the_user_may_not_run_names_the_folder_that_is_closed(starter: Starter) -> None:
    """A virtual environment is open to all, and its program is a link into a home that is not."""
    srvd = starter.new()
    (srvd.folder / "home").mkdir()
    shutil.copy("/bin/true", srvd.folder / "home" / "python")
    (srvd.folder / "home").chmod(0o700)
    (srvd.folder / "python").symlink_to(srvd.folder / "home" / "python")
    srvd.configure(toml(f'user = "nobody"\npython = "{srvd.folder}/python"'))
    srvd.let_others_in()
    done = srvd.run()
    assert done.returncode == 1
    assert f"uid {NOBODY.pw_uid} may not enter {srvd.folder / 'home'}, which is on the way to " in done.stderr


def _is_open(path: str) -> bool:
    look = "import os, sys; os.setuid(65534); os.stat(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", look, path], check=False, stderr=subprocess.DEVNULL)
    return done.returncode == 0


@pytest.mark.parametrize(
    ("breaks", "hint"),
    [("rm /dev/null", "/dev/null is not there"), ("umount -l /proc", "srvd needs /proc: mount it")],
)
def test_a_system_without_what_srvd_needs_is_told_what_is_missing(starter: Starter, breaks: str, hint: str) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no mount namespaces")
    srvd = starter.new(config=toml(), code=CODE)
    dev = "mount -t tmpfs dev /dev && touch /dev/null && " if "null" in breaks else ""
    script = f'{dev}{breaks} && exec "$@"'
    srvd.command[:0] = ["unshare", "-m", "sh", "-c", script, "sh"]
    done = srvd.run()
    assert done.returncode != 0
    assert hint in done.stderr


def test_a_start_that_fails_for_want_of_a_group_blames_no_process(starter: Starter) -> None:
    """The interpreter that was started ahead of time is nobody's leftover."""
    srvd = starter.new(config=toml('user = "31999"'), code=CODE)
    srvd.let_others_in()
    done = srvd.run()
    assert done.returncode == 1
    assert "run as user 31999: it has no entry" in done.stderr
    assert "behind" not in done.stderr
