"""Claims about the entry of an upgrade: its name, its argument and what is handed over are those of the first release.

Daemons of any earlier version call it. A test that fails here says that an upgrade from such a daemon would fail.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from srvd import _upgrade_entry
from srvd.daemon.upgrade.replace import BOOT
from tests.conftest import Starter
from tests.support.daemon import Srvd
from tests.support.srvd_versions import Versions

FIRST_BOOT = """\
import json, os, signal, sys, traceback
class TookTooLong(BaseException): pass
note = int(sys.argv[1])
plan = json.loads(os.pread(note, os.fstat(note).st_size, 0))
def late(number, frame):
    raise TookTooLong(f"it had not taken over within {plan['limit']:g} s")
try:
    if plan["former"]:
        signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, plan["limit"], 1.0)
    if plan["folder"] not in sys.path:
        sys.path.insert(0, plan["folder"])
    from srvd._upgrade_entry import take_over
    take_over(plan)
except BaseException as exc:
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    if not plan or not plan["former"]:
        raise
    former = plan["former"]
    plan.update(failure=f"{type(exc).__name__}: {exc}", proof=traceback.format_exc(), folder=former["folder"])
    plan.update(former=None)
    text = json.dumps(plan).encode()
    os.ftruncate(note, 0)
    os.pwrite(note, text, 0)
    for fd in [note, plan["state"], *plan["fds"].values()]:
        os.set_inheritable(fd, True)
    interpreter = former["interpreter"] if os.access(former["interpreter"], os.X_OK) else sys.executable
    os.execve(interpreter, [interpreter, "-P", "-c", plan["boot"], str(note)], os.environ)
"""
"""The boot text of the first release. It never changes here, even if `BOOT` gets better."""

PLAN: dict[str, type | tuple[type, ...]] = {
    "state": int,
    "fds": dict,
    "folder": str,
    "boot": str,
    "former": (dict, type(None)),
    "limit": (int, float),
    "failure": str,
    "proof": str,
}
"""The keys of a plan, with the types of their values."""

CALL = "    resume.main(plan)\n"
RECORDS = """\
    import json, os, sys
    state = os.fstat(plan["state"]).st_size
    open_fds = {name: fd for name, fd in plan["fds"].items() if os.fstat(fd)}
    with open("PATH", "w") as file:
        json.dump({"plan": plan, "argv": sys.argv, "orig": sys.orig_argv[1:3], "state": state, "fds": open_fds}, file)
"""


def recording(path: Path) -> dict[str, tuple[str, str]]:
    """Edits of a version whose entry writes down what it is given."""
    return {"_upgrade_entry.py": (CALL, RECORDS.replace("PATH", str(path)) + CALL)}


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    """In use: a program that calls as the first release does, and records what it is given when it comes back."""
    made = Versions(tmp_path / "versions")
    made.install("1.0", {"daemon/upgrade/replace.py": (BOOT, FIRST_BOOT), **recording(tmp_path / "back")})
    return made


@pytest.fixture
def old(starter: Starter, versions: Versions) -> Srvd:
    return starter("--workers", "1", env=versions.env)


def given(path: Path) -> dict[str, Any]:
    """What an entry was given, of which the part that is the same for all is held here."""
    found: dict[str, Any] = json.loads(path.read_text())
    plan = found["plan"]
    assert {key: isinstance(plan.get(key), kind) for key, kind in PLAN.items()} == dict.fromkeys(PLAN, True)
    assert set(plan) == set(PLAN)
    assert found["orig"] == ["-P", "-c"]
    assert len(found["argv"]) == 2
    assert int(found["argv"][1]) > 2
    assert found["state"] > 0
    assert found["fds"] == plan["fds"]
    assert len(plan["fds"]) > 2
    return plan  # type: ignore[no-any-return]


def test_the_entry_has_the_name_and_the_argument_of_the_first_release() -> None:
    assert _upgrade_entry.__name__ == "srvd._upgrade_entry"
    assert list(inspect.signature(_upgrade_entry.take_over).parameters) == ["plan"]
    assert "from srvd._upgrade_entry import take_over\n    take_over(plan)\n" in BOOT


def test_a_daemon_that_calls_as_the_first_release_is_upgraded(old: Srvd, versions: Versions, tmp_path: Path) -> None:
    versions.install("1.1", recording(tmp_path / "come"))
    done = old.ctl("upgrade")
    assert done.returncode == 0, done.stderr
    assert old.status()["daemon"]["version"] == "1.1"
    assert old.get().startswith("one ")
    plan = given(tmp_path / "come")
    assert set(plan["former"]) == {"interpreter", "folder"}
    assert (plan["failure"], plan["proof"]) == ("", "")
    assert plan["folder"] == str((versions.folder / "1.1").resolve())
    assert plan["boot"] == FIRST_BOOT


def test_the_program_that_comes_back_is_told_why(old: Srvd, versions: Versions, tmp_path: Path) -> None:
    versions.install("1.1", {"_upgrade_entry.py": (CALL, "    raise OSError('no luck')\n")})
    done = old.ctl("upgrade")
    assert done.returncode == 1
    assert "srvd 1.0 goes on" in done.stderr
    plan = given(tmp_path / "back")
    assert plan["former"] is None
    assert plan["failure"] == "OSError: no luck"
    assert "in take_over" in plan["proof"]
    assert old.get().startswith("one ")
