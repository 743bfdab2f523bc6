"""Claims about a family of the version before the borders: refused with the reason, or sent away; nothing is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support.adoption import pids
from tests.support.daemon import BOOT, Srvd, free_port
from tests.support.srvd_versions import Versions
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

FORMER = "88af139"
"""The last commit with one scoreboard for all."""


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    root = Path(__file__).parents[2]
    done = subprocess.run(["git", "archive", FORMER, "src/srvd"], cwd=root, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"there is no commit {FORMER} here: {done.stderr.decode().strip()}")
    made = Versions(tmp_path / "versions")
    folder = made.folder / "former"
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=done.stdout, check=True)
    (folder / "src" / "srvd").rename(folder / "srvd")
    made.use("former")
    return made


@pytest.fixture
def old(starter: Starter, versions: Versions) -> Srvd:
    srvd = starter.new("--workers", "2", env=versions.env)
    srvd.command = [word.replace("127.0.0.1:0", f"127.0.0.1:{free_port()}") for word in srvd.command]
    return srvd.start()


def test_an_upgrade_from_it_is_refused_and_changes_nothing(old: Srvd, versions: Versions) -> None:
    before = pids(old)
    versions.install("2.0")
    for words in (("upgrade", "--check"), ("upgrade",)):
        done = old.ctl(*words)
        assert done.returncode == 1
        assert "this program reads version" in done.stderr
        assert "this upgrade needs a restart" in done.stderr
    assert pids(old) == before
    assert old.get().startswith("one ")
    versions.use("former")


def test_a_start_after_its_death_sends_its_workers_away_and_serves(old: Srvd, versions: Versions) -> None:
    wait_for(lambda: old.socket.with_name("control.sock.state").exists())
    versions.install("2.0")
    before = pids(old)
    with old.under_load(clients=2) as load:
        old.die()
        old.start(ready=False)
        wait_for(lambda: "srvd 2.0 starts" in old.logged(), BOOT)
        wait_for(old.is_ready, BOOT)
        load.more(20)
    old.wait_logged("each remaining worker is sent away when its requests are over")
    assert not set(pids(old).values()) & set(before.values())
