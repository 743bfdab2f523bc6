"""Deploys as people do them: a link that is switched, a folder that is swapped, a release with its own environment."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

import srvd as package
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Srvd
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

SITES = [str(Path(package.__file__).parents[1]), *(folder for folder in sys.path if "site-packages" in folder)]
"""Where srvd and what it needs are found."""


class Releases:
    """releases/1, releases/2 … below `root`, and `current` that leads to one of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.current = root / "current"

    def __getitem__(self, name: str) -> Path:
        return self.root / "releases" / name

    def make(self, name: str) -> Path:
        self[name].mkdir(parents=True)
        (self[name] / "app.py").write_text(apps.good(name))
        return self[name]

    def switch(self, name: str) -> None:
        """As Capistrano, Fabric and Deployer do: `ln -sfn`, which is atomic."""
        new = self.root / "new"
        new.symlink_to(Path("releases") / name)
        new.rename(self.current)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    found = Releases(tmp_path)
    found.make("1")
    found.make("2")
    found.switch("1")
    return found


def start_in(srvd: Srvd, folder: Path, *, named: bool = True) -> Srvd:
    """As from a shell that has gone there; without `named` as from a program that sets no $PWD."""
    (srvd.folder / "app.py").unlink()
    srvd.env = {**srvd.env, "PWD": str(folder)}
    if not named:
        del srvd.env["PWD"]
    return srvd.start(cwd=folder)


def release(srvd: Srvd) -> str:
    return srvd.get().split()[0]


def reload(srvd: Srvd) -> str:
    done = srvd.ctl("reload")
    assert done.returncode == 0, done.stderr
    return done.stdout


def upgrade(srvd: Srvd) -> None:
    done = srvd.ctl("upgrade")
    assert done.returncode == 0, done.stderr


def test_a_link_that_is_switched_is_followed(starter: Starter, releases: Releases) -> None:
    srvd = start_in(starter.new("--workers", "1"), releases.current)
    assert release(srvd) == "1"
    releases.switch("2")
    assert f"loaded from {releases['2']}" in reload(srvd)
    assert release(srvd) == "2"
    shutil.rmtree(releases["1"])
    reload(srvd)
    assert release(srvd) == "2"
    upgrade(srvd)
    releases.make("3")
    releases.switch("3")
    reload(srvd)
    assert release(srvd) == "3"
    assert srvd.call("status")["pools"][0]["folder"] == str(releases["3"])


def test_a_rollback_serves_the_former_release(starter: Starter, releases: Releases) -> None:
    srvd = start_in(starter.new("--workers", "1"), releases.current)
    releases.switch("2")
    reload(srvd)
    assert srvd.ctl("rollback").returncode == 0
    assert release(srvd) == "1"
    assert srvd.ctl("scale", "3").returncode == 0
    assert {release(srvd) for _ in range(12)} == {"1"}


def test_a_folder_that_is_swapped_is_followed(starter: Starter, releases: Releases) -> None:
    site = releases.root / "site"
    releases["1"].rename(site)
    srvd = start_in(starter.new("--workers", "1"), site)
    site.rename(releases.root / "site.old")
    done = srvd.ctl("reload")
    assert done.returncode == 1
    assert f"enter {site}, where srvd was started: No such file or directory" in done.stderr
    assert release(srvd) == "1"
    releases["2"].rename(site)
    reload(srvd)
    assert release(srvd) == "2"


def test_a_configuration_in_the_release_is_the_new_releases(starter: Starter, releases: Releases) -> None:
    for name, workers in (("1", 1), ("2", 3)):
        text = f'[listeners.web]\nbind = ["127.0.0.1:0"]\n[pools.web]\napp = "app:app"\nworkers = {workers}\n'
        (releases[name] / "srvd.toml").write_text(text)
    srvd = starter.new()
    srvd.command = [*srvd.command[: srvd.command.index("app:app")]]  # ./srvd.toml says it
    start_in(srvd, releases.current)
    releases.switch("2")
    reload(srvd)
    assert release(srvd) == "2"
    assert srvd.call("status")["pools"][0]["serving"] == 3


def test_what_is_relative_stays_below_the_name(starter: Starter, releases: Releases) -> None:
    """An access log and a pidfile that were named on the command line."""
    srvd = starter.new("--workers", "1", "--access-log", "access.log", "--pidfile", "srvd.pid")
    start_in(srvd, releases.current)
    srvd.get()
    wait_for((releases["1"] / "access.log").read_text, within=BOOT)
    releases.switch("2")
    reload(srvd)
    srvd.get()
    wait_for((releases["2"] / "access.log").exists, within=BOOT)


def test_two_dots_behind_a_link_are_the_kernels(starter: Starter, releases: Releases) -> None:
    """`../../shared/log`, written in a release, is where the release lies: not where the link does."""
    (releases.root / "shared").mkdir()
    srvd = start_in(starter.new("--workers", "1", "--access-log", "../../shared/access.log"), releases.current)
    srvd.get()
    wait_for((releases.root / "shared" / "access.log").exists, within=BOOT)


def test_without_a_name_the_real_folder_is_held_and_told(starter: Starter, releases: Releases) -> None:
    srvd = start_in(starter.new("--workers", "1"), releases.current, named=False)
    srvd.wait_logged(f"loaded from {releases['1']}")
    srvd.wait_logged("a link that leads here is not followed")
    releases.switch("2")
    assert f"loaded from {releases['1']}" in reload(srvd)
    assert release(srvd) == "1"


def test_a_late_import_comes_from_the_release_that_was_loaded(starter: Starter, releases: Releases) -> None:
    """Also from a folder of `pythonpath` that is named by the link."""
    for name in ("1", "2"):
        (releases[name] / "lib").mkdir()
        (releases[name] / "lib" / "late.py").write_text(f"RELEASE = {name!r}\n")
        (releases[name] / "app.py").write_text(
            "def app(environ, start_response):\n"
            "    import late\n"
            "    start_response('200 OK', [])\n"
            "    return [late.RELEASE.encode() + b' ']\n"
        )
    srvd = starter.new("--workers", "1", env={"SRVD_PYTHONPATH": str(releases.current / "lib")})
    start_in(srvd, releases.current)
    releases.switch("2")
    assert release(srvd) == "1"


class Environments:
    """A virtual environment in each release, with srvd and a dependency of its own."""

    def __init__(self, releases: Releases) -> None:
        self.releases = releases
        self.of("1")
        self.of("2")

    def of(self, name: str) -> None:
        if not self.releases[name].exists():
            self.releases.make(name)
        folder = self.releases[name] / ".venv"
        venv.create(folder, symlinks=True, with_pip=False)
        (site,) = folder.glob("lib/python3*/site-packages")
        (site / "srvd.pth").write_text("".join(f"{path}\n" for path in SITES))
        (site / "dependency.py").write_text(f"VERSION = {name!r}\n")
        program = folder / "bin" / "srvd"  # as pip writes it: with the name that it was installed by
        program.write_text(f"#!{folder}/bin/python\nfrom srvd.__main__ import main\nmain()\n")
        program.chmod(0o755)
        (self.releases[name] / "app.py").write_text(
            f"import sys, dependency\n"
            f"def app(environ, start_response):\n"
            f"    start_response('200 OK', [])\n"
            f"    return [f'{name} {{dependency.VERSION}} {{sys.prefix}}'.encode()]\n"
        )


@pytest.fixture
def environments(releases: Releases) -> Environments:
    return Environments(releases)


def by_script(current: Path) -> list[str]:
    return [str(current / ".venv/bin/srvd")]


def by_relative_script(current: Path) -> list[str]:
    return [".venv/bin/srvd"]


def by_module(current: Path) -> list[str]:
    return [".venv/bin/python", "-m", "srvd"]


@pytest.mark.parametrize("typed", [by_script, by_relative_script, by_module])
def test_an_environment_in_the_release_is_the_new_releases(
    starter: Starter, environments: Environments, typed: Callable[[Path], list[str]]
) -> None:
    """Also after an upgrade, and when the former release has gone."""
    releases = environments.releases
    srvd = starter.new("--workers", "1")
    srvd.command[:1] = typed(releases.current)
    start_in(srvd, releases.current)
    assert srvd.get() == f"1 1 {releases['1']}/.venv"
    releases.switch("2")
    reload(srvd)
    assert srvd.get() == f"2 2 {releases['2']}/.venv"
    shutil.rmtree(releases["1"])
    upgrade(srvd)
    reload(srvd)
    environments.of("3")
    releases.switch("3")
    reload(srvd)
    assert srvd.get() == f"3 3 {releases['3']}/.venv"
    shutil.rmtree(releases["2"])
    reload(srvd)
    assert srvd.get() == f"3 3 {releases['3']}/.venv"


NOT_UTF8 = os.fsdecode(b"caf\xe9")


def test_names_that_are_not_utf8_work_everywhere(starter: Starter, tmp_path: Path) -> None:
    folder = tmp_path / NOT_UTF8
    folder.mkdir()
    (folder / "app.py").write_text(apps.good("odd"))
    log = folder / "access.log"
    srvd = starter.new("--workers", "1", "--access-log", str(log), env={"SRVD_CHDIR": str(folder)}).start()
    assert release(srvd) == "odd"
    wait_for(log.read_text, within=BOOT)
    reload(srvd)
    upgrade(srvd)
    reload(srvd)
    assert release(srvd) == "odd"
    assert srvd.ctl_json("status")["pools"][0]["folder"].endswith("caf\\udce9")


def test_a_rollback_to_a_release_that_was_deleted_says_what_is_missing(starter: Starter, releases: Releases) -> None:
    srvd = start_in(starter.new("--workers", "1"), releases.current)
    releases.switch("2")
    reload(srvd)
    kept = srvd.ctl("rollback")
    assert (kept.returncode, kept.stderr, release(srvd)) == (0, "", "1")
    reload(srvd)
    shutil.rmtree(releases["1"])
    done = srvd.ctl("rollback")
    assert (done.returncode, release(srvd)) == (0, "1")
    assert f"{releases['1']} is gone" in done.stderr
    assert f"{releases['1']} is gone" in srvd.ctl("status").stdout
    releases["1"].mkdir()  # another folder of that name
    assert f"{releases['1']} is gone" in srvd.ctl("status").stdout
    reload(srvd)
    assert "is gone" not in srvd.ctl("status").stdout
