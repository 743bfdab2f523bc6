"""Claims about each abuse of a pool's user that is no worker, alone: it is about its own pool, and no file of root's
changes. The daemon has adopted its workers, so the name where they called is open.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from srvd.errors import SrvdError
from tests.conftest import Starter
from tests.hostile import local_users
from tests.hostile.attackers import STRANGER, attempt, needs_root
from tests.hostile.neighbour import undisturbed
from tests.hostile.pool_users import ABUSES, PROGRAM, RELOADED
from tests.hostile.test_channels import APP, two_pools
from tests.support.adoption import adopted, is_written
from tests.support.daemon import BOOT, Srvd
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.system, needs_root]

SECRETS = ("token-of-other", "of root alone")


class Place(NamedTuple):
    srvd: Srvd
    own: Path  # the user's folder
    roots: Path  # a file of root's, that the user cannot get at

    def targets(self) -> str:
        """Pids of all that is not the pool's own."""
        return ",".join(map(str, (self.srvd.pid, *self._members(strangers=False))))

    def pool(self) -> str:
        return ",".join(map(str, self._members(strangers=True)))

    def _members(self, *, strangers: bool) -> list[int]:
        found = []
        for one in self.srvd.family():
            with contextlib.suppress(psutil.NoSuchProcess):  # replaced meanwhile
                if (one.uids().real == STRANGER) is strangers:
                    found.append(one.pid)
        return found

    def marks(self) -> dict[str, tuple[int, int, int, int]]:
        """Of all that is root's: mode, owner, group, size."""
        found = {}
        for path in (self.roots, self.roots.parent, self.srvd.folder, *self.srvd.folder.iterdir()):
            if path.name == "control.sock.state.new":  # the daemon is about to rename it
                continue
            seen = path.lstat()
            size = 0 if path.name in ("log", "control.sock.state") or path.is_dir() else seen.st_size
            found[path.name] = (seen.st_mode, seen.st_uid, seen.st_gid, size)
        return found


@pytest.fixture(scope="module")
def place(module_starter: Starter) -> Place:
    own, kept = module_starter.folder / "own", module_starter.folder / "kept"
    for folder in (own, kept):
        folder.mkdir()
    os.chown(own, STRANGER, STRANGER)
    (own / "app.py").write_text(APP)
    os.chown(own / "app.py", STRANGER, STRANGER)
    roots = kept / "roots"
    roots.write_text("of root alone")
    roots.chmod(0o600)
    kept.chmod(0o755)
    settings = f'chdir = "{own}"\nboot_timeout = "3s"'
    last = f'[listeners.unix]\nbind = ["unix:{own}/web.sock"]\n[control]\nroles = {{ viewer = ["{STRANGER + 2}"] }}'
    srvd = two_pools(module_starter, APP, seconds=settings, listeners=("web", "unix"), last=last)
    wait_for(lambda: is_written(srvd))
    srvd.die()
    adopted(srvd)
    srvd.wait_serving(2, pool="other")
    return Place(srvd, own, roots)


def tidied(own: Path) -> None:
    """Only the application is left in the user's folder."""
    for path in own.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != "app.py":
            path.unlink()


def attempt_beside(place: Place, program: str, abuse: str, *arguments: str) -> None:
    """The attempt, while others are served; and nothing of root's has changed."""
    srvd, before = place.srvd, place.marks()
    with undisturbed(srvd):
        attempt(STRANGER, program, abuse, str(srvd.socket), str(srvd.pid), place.targets(), *arguments)
    assert place.marks() == before
    assert place.roots.read_text() == "of root alone"
    assert not (place.own / "ran-as-0").exists()


@pytest.mark.parametrize("abuse", local_users.ABUSES)
def test_a_pools_user_may_no_more_than_any_local_user(place: Place, abuse: str) -> None:
    attempt_beside(place, local_users.PROGRAM, abuse, *SECRETS)


@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abuse_of_a_pools_user_is_about_its_own_pool_alone(place: Place, abuse: str) -> None:
    srvd, over, reloads = place.srvd, threading.Event(), [0]

    def reload() -> None:
        while not over.wait(0.1):
            with contextlib.suppress(SrvdError):  # it may spoil its own
                srvd.call("reload", pool="web", timeout=20)
            reloads[0] += 1

    thread = threading.Thread(target=reload)
    if abuse in RELOADED:
        thread.start()
    try:
        attempt_beside(
            place, PROGRAM, abuse, str(place.own), str(place.roots), place.pool(), str(srvd.address("other")[1])
        )
    finally:
        over.set()
        if abuse in RELOADED:
            thread.join(2 * BOOT)
    assert (reloads[0] > 0) == (abuse in RELOADED)
    tidied(place.own)
    mended = srvd.call("reload", pool="web")  # and root can have it in order again
    assert mended["operation"]["state"] == "done"
    assert srvd.get() == "ok"
    assert {op["actor"]["uid"] for op in srvd.call("history", limit=200)["operations"]} <= {0, -1}  # -1: srvd itself
    assert psutil.Process(srvd.pid).num_fds() < 100
