"""Claims about root's power: nothing that a pool's user can change is run, followed or touched by root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import srvd as package
from srvd.linux import trust
from tests.conftest import Starter
from tests.hostile.attackers import ANSWER, STRANGER, needs_root
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.system, needs_root]

WHO = f'user = "{STRANGER}"\ngroup = "{STRANGER}"'

TELLS = "import os\nos.close(os.open({path!r} + str(os.getuid()), os.O_CREAT | os.O_WRONLY))\n"


def folder_of_the_user(srvd: Srvd, name: str) -> Path:
    made = srvd.folder / name
    made.mkdir()
    os.chown(made, STRANGER, STRANGER)
    return made


def uids(folder: Path) -> set[str]:
    """As whom its code was run."""
    return {path.name.removeprefix("ran-as-") for path in folder.glob("ran-as-*")}


def other_python() -> str:
    """One that everybody may run, of the version for which srvd is installed here."""
    for name in (f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}",):
        if os.access(name, os.X_OK):
            return name
    pytest.skip("there is no Python of this version that other users may run")


@pytest.mark.parametrize("way", ["PYTHONPATH", "python"])
def test_code_of_the_user_is_never_run_as_root(starter: Starter, way: str) -> None:
    python = other_python()
    packages = [str(Path(package.__file__).parent.parent), *(path for path in sys.path if path.endswith("-packages"))]
    srvd = starter.new(code=ANSWER + "attack = len\n")
    theirs = folder_of_the_user(srvd, "theirs")
    (theirs / "sitecustomize.py").write_text(TELLS.format(path=f"{theirs}/ran-as-"))
    wrapper = theirs / "python"
    wrapper.write_text(f'#!/bin/sh\n: > "{theirs}/ran-as-$(id -u)"\nexec {python} "$@"\n')
    wrapper.chmod(0o755)
    path = ":".join([*packages, *([str(theirs)] if way == "PYTHONPATH" else [])])
    interpreter = wrapper if way == "python" else python
    srvd.configure(toml(f'workers = 1\n{WHO}\npython = "{interpreter}"\nenv = {{ PYTHONPATH = "{path}" }}'))
    srvd.command[2:] = ["--socket", str(srvd.socket), "-c", str(srvd.folder / "srvd.toml")]
    srvd.let_others_in()
    srvd.start(ready=False)
    wait_for(lambda: uids(theirs), BOOT)
    wait_for(srvd.is_ready, BOOT)
    assert srvd.get()
    assert srvd.call("reload")["operation"]["state"] == "done"
    assert uids(theirs) == {str(STRANGER)}


def test_an_interpreter_that_the_user_cannot_run_is_told(starter: Starter) -> None:
    srvd = starter.new(code=ANSWER + "attack = len\n")
    python = srvd.folder / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o700)
    srvd.configure(toml(f'workers = 1\n{WHO}\npython = "{python}"'))
    srvd.command[2:] = ["--socket", str(srvd.socket), "-c", str(srvd.folder / "srvd.toml")]
    srvd.let_others_in()
    done = srvd.run()
    assert done.returncode != 0
    assert f"run {python}: Permission denied" in done.stderr
    assert "its user must be able to run" in done.stderr


def test_variables_reach_an_application_of_another_user(starter: Starter) -> None:
    code = ANSWER + "def attack(environ):\n    return os.environ['COLOUR'], os.getuid()\n"
    srvd = starter.new(config=toml(f'workers = 1\n{WHO}\nenv = {{ COLOUR = "blue" }}'), code=code)
    srvd.let_others_in()
    srvd.start()
    assert srvd.get().split(" ", 1)[1] == str(("blue", STRANGER))
    assert srvd.call("reload")["operation"]["state"] == "done"
    assert srvd.get().split(" ", 1)[1] == str(("blue", STRANGER))


@pytest.mark.parametrize("setting", ["log_file", "pidfile"])
def test_root_writes_in_no_folder_of_another_user(starter: Starter, setting: str) -> None:
    """Its user could exchange the file for a link to any other one at any moment."""
    srvd = starter.new(code=ANSWER + "attack = len\n")
    theirs = folder_of_the_user(srvd, "theirs")
    srvd.configure(toml("workers = 1", f'[daemon]\n{setting} = "{theirs}/file"'))
    srvd.command[2:] = ["--socket", str(srvd.socket), "-c", str(srvd.folder / "srvd.toml")]
    done = srvd.run()
    assert done.returncode == 71
    assert f"{theirs} belongs to uid {STRANGER}" in done.stderr
    srvd.command[1] = "check"
    del srvd.command[2:4]  # --socket, which a check has not
    done = srvd.run()
    assert done.returncode == 71
    assert f"{theirs} belongs to uid {STRANGER}" in done.stderr
    assert not list(theirs.iterdir())
    link = srvd.folder / "linked"
    link.symlink_to(theirs)
    with pytest.raises(PermissionError, match="belongs to uid"):
        trust.settle(f"{link}/file")
    assert trust.settle(f"{srvd.folder}/log") == f"{srvd.folder}/log"
    link.unlink()
    link.symlink_to(srvd.folder)  # where it leads is root's, and the link is not
    os.lchown(link, STRANGER, -1)
    with pytest.raises(PermissionError, match="the link"):
        trust.settle(f"{link}/log")


def test_a_configuration_that_was_not_named_must_be_roots(starter: Starter) -> None:
    srvd = starter.new(code=ANSWER + "attack = len\n")
    srvd.configure(toml("workers = 1"))
    os.chown(srvd.folder / "srvd.toml", STRANGER, STRANGER)
    named = list(srvd.command)
    srvd.command[2:] = ["--socket", str(srvd.socket)]
    done = srvd.run()
    assert done.returncode == 78
    assert f"it belongs to uid {STRANGER}" in done.stderr
    assert "-c srvd.toml" in done.stderr
    srvd.command = [*named[:2], "--socket", str(srvd.socket), "-c", str(srvd.folder / "srvd.toml")]
    srvd.start()


def test_a_check_of_the_next_program_imports_nothing_of_the_working_directory(starter: Starter) -> None:
    srvd = starter.new(config=toml("workers = 1"), code=ANSWER + "attack = len\n")
    srvd.command[:1] = [sys.executable, "-m", "srvd"]
    srvd.start()
    (srvd.folder / "json.py").write_text(TELLS.format(path=f"{srvd.folder}/ran-as-"))
    done = srvd.ctl("upgrade", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert not uids(srvd.folder)
