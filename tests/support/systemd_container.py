"""A real systemd in a container: a minimal Debian, booted with srvd and the units of contrib/systemd in it.

Claims nothing (system/test_systemd_container.py does). It shares the machine's network, and sees srvd's source and the
packages of the environment that the tests run in; everything else of the machine is hidden from it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import psutil

import srvd
from tests.support import apps
from tests.support.waiting import wait_for

UNITS = Path(__file__).parents[2] / "contrib" / "systemd"
SOURCE = Path(srvd.__file__).parent.parent
PACKAGES = Path(msgpack.__file__).parent.parent

BUILD_LIMIT = 1200
"""Seconds that the installation may take. It takes one minute, and several on a machine that has other work to do."""

BOOT_LIMIT = 120

INCLUDED = "systemd,systemd-sysv,dbus,python3,logrotate"

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}

_VERSION = "{0.major}.{0.minor}"

_SCRIPT = "#!{python}\nimport sys\nfrom srvd.{module} import main\nsys.exit(main())\n"

Map = dict[str, Any]


class CannotRun(Exception):
    """This machine has not what a box needs; the message says what."""


class Box:
    """The container, from `booted`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._log = root.with_name(root.name + ".log")
        self._spawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    # -- life -----------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Installs it, unless that was done before, and to the end. Raises `CannotRun`."""
        built = self.root / "etc" / "srvd-box"
        if built.exists():
            return
        shutil.rmtree(self.root, ignore_errors=True)  # what an earlier build left when it was cut off
        release = _os_release().get("VERSION_CODENAME", "")
        # In a mount namespace of its own: a build that is cut off leaves no /proc mounted in the folder.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={INCLUDED}"]
        run_for(BUILD_LIMIT, [*command, release, str(self.root), _mirror()], self._log)
        (self.root / "etc" / "machine-id").write_text("")
        self._install()
        built.touch()

    def boot(self) -> None:
        """Raises `CannotRun`."""
        command = [
            "systemd-nspawn", "--quiet", f"--directory={self.root}", "--register=no", "--keep-unit", "--console=pipe",
            f"--bind-ro={SOURCE}:/opt/srvd/source", f"--bind-ro={PACKAGES}:/opt/srvd/packages", "--boot",
        ]  # fmt: skip
        with self._log.open("wb") as output:
            self._spawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            wait_for(self._is_up, within=BOOT_LIMIT, every=0.1)
        except AssertionError:
            raise CannotRun(f"systemd does not boot here: {_last_line(self._log)}") from None

    def halt(self) -> None:
        """Shuts it down; kills what does not go."""
        if self._spawn is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._leader:
                self.run("systemctl", "poweroff", "--no-wall", check=False)
                self._spawn.wait(20)
        if self._spawn.poll() is None:
            for process in [*psutil.Process(self._spawn.pid).children(), psutil.Process(self._spawn.pid)]:
                process.kill()
            self._spawn.wait(20)

    def _is_up(self) -> bool:
        assert self._spawn is not None
        if self._spawn.poll() is not None:
            msg = "systemd-nspawn ended"
            raise AssertionError(msg)
        children = psutil.Process(self._spawn.pid).children()
        if not children:
            return False
        self._leader = children[0].pid
        return self.is_running()

    def _install(self) -> None:
        """srvd in an environment of its own where the units expect it, its user, the application's folder."""
        own, wanted = self._python_version(), _VERSION.format(sys.version_info)
        if own != wanted:
            raise CannotRun(f"the packages here are for Python {wanted}, and Debian's is {own}")
        shop = self.root / "opt" / "shop"
        self._chroot("python3", "-m", "venv", "--without-pip", "/opt/shop/venv")
        packages = next((shop / "venv" / "lib").glob("python3*")) / "site-packages"
        (packages / "srvd.pth").write_text("/opt/srvd/source\n/opt/srvd/packages\n")
        for name, module in (("srvd", "__main__"), ("srvctl", "ctl.main")):
            script = shop / "venv" / "bin" / name
            script.write_text(_SCRIPT.format(python="/opt/shop/venv/bin/python3", module=module))
            script.chmod(0o755)
        for folder in ("etc/srvd", "etc/systemd/system"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for source, place in (
            ("sysusers.conf", "usr/lib/sysusers.d/srvd.conf"),
            ("tmpfiles.conf", "usr/lib/tmpfiles.d/srvd.conf"),
            ("logrotate.conf", "etc/logrotate.d/srvd"),
        ):
            shutil.copy(UNITS / source, self.root / place)

    def _python_version(self) -> str:
        return self._chroot("python3", "-c", f"import sys; print({_VERSION!r}.format(sys.version_info))").strip()

    def _chroot(self, *words: str) -> str:
        command = ["chroot", str(self.root), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=_ENVIRONMENT).stdout

    # -- inside ---------------------------------------------------------------------------------------------------

    def run(self, *words: str, check: bool = True, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        """A command inside; its outcome. With `check` it must succeed."""
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-p", "-n", "-C", "-r", "-w"]
        done = subprocess.run(
            [*enter, *words], capture_output=True, text=True, timeout=timeout, env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def is_running(self) -> bool:
        """Whether its systemd has started everything, and answers."""
        done = self.run("systemctl", "is-system-running", check=False)
        return done.stdout.strip() in ("running", "degraded")

    def path(self, inside: str) -> Path:
        """Where a file of the box is, seen from outside; of folders that are mounted at its boot, use `run`."""
        return self.root / inside.lstrip("/")

    def signal(self, pid: int, name: str) -> None:
        self.run("sh", "-c", f"kill -{name} {pid}")

    def journal(self, unit: str, since: float, *words: str) -> str:
        """What is in it since that moment, of what `words` of journalctl choose."""
        # Not by a cursor: with a filter journalctl skips the first entry behind it.
        command = ["journalctl", "--no-pager", "--output=cat", "-u", unit, f"--since=@{since:.6f}", *words]
        return self.run(*command).stdout


class Service:
    """One srvd as a unit of the box: the shipped file, with what the test adds as a drop-in."""

    def __init__(self, box: Box, unit: str = "srvd.service") -> None:
        self.box = box
        self.unit = unit
        name = unit.removesuffix(".service").partition("@")[2]
        self.instance = name or "srvd"
        self.folder = f"/opt/{name or 'shop'}"
        self._places = box.path("/etc/systemd/system")
        self._began = time.time()

    def install(self, config: str, *lines: str, code: str | None = None, socket: str = "") -> None:
        """Puts unit, configuration and application in place; `lines` go into [Service], `socket` into [Socket]."""
        template = "srvd@.service" if "@" in self.unit else "srvd.service"
        shutil.copy(UNITS / template, self._places / template)
        self._drop_in(self.unit, "Service", lines)
        if socket:
            shutil.copy(UNITS / "srvd.socket", self._places / "srvd.socket")
            self._drop_in("srvd.socket", "Socket", socket.split("\n"))
        self.configure(config)
        self.deploy(apps.good() if code is None else code)
        self.box.run("systemctl", "daemon-reload")

    def _drop_in(self, unit: str, section: str, lines: object) -> None:
        assert isinstance(lines, (tuple, list))
        folder = self._places / f"{unit}.d"
        folder.mkdir(exist_ok=True)
        (folder / "test.conf").write_text("\n".join([f"[{section}]", *lines, ""]))

    def configure(self, config: str) -> None:
        self.box.path(f"/etc/srvd/{self.instance}.toml").write_text(config)

    def deploy(self, code: str) -> None:
        folder = self.box.path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "app.py").write_text(code)

    def remove(self) -> None:
        """Stops it, and leaves nothing of it behind."""
        units = [self.unit, *(["srvd.socket"] if (self._places / "srvd.socket").exists() else [])]
        self.box.run("systemctl", "stop", *reversed(units), check=False)
        self.box.run("systemctl", "reset-failed", *units, check=False)
        for unit in units:
            shutil.rmtree(self._places / f"{unit}.d", ignore_errors=True)
        for name in ("srvd.service", "srvd@.service", "srvd.socket"):
            (self._places / name).unlink(missing_ok=True)
        self.box.run("systemctl", "daemon-reload")

    def systemctl(self, verb: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.box.run("systemctl", verb, *words, self.unit, check=check)

    def start(self) -> None:
        done = self.systemctl("start", check=False)
        assert done.returncode == 0, done.stderr + self.journal()

    def show(self, name: str) -> str:
        return self.systemctl("show", f"--property={name}", "--value").stdout.strip()

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    @property
    def state(self) -> str:
        return self.show("ActiveState")

    def journal(self, *words: str) -> str:
        """Since this object was made, of what `words` of journalctl choose."""
        return self.box.journal(self.unit, self._began, *words)

    def ctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [f"{self.folder}/venv/bin/srvctl", "--socket", f"/run/srvd/{self.instance}.sock", *words]
        return self.box.run(*command, check=check)

    def status(self) -> Map:
        answer: Map = json.loads(self.ctl("--json", "status").stdout)
        return answer

    def wait_restarted(self, before: int) -> None:
        """Until another process than that is the active one."""
        wait_for(lambda: self.pid not in (0, before) and self.state == "active", within=60)

    def workers(self) -> dict[str, int]:
        """Pids of those that serve, by name."""
        workers = (worker for pool in self.status()["pools"] for worker in pool["workers"])
        return {worker["id"]: worker["pid"] for worker in workers if worker["state"] == "serving"}

    def is_state_written(self) -> bool:
        """Whether the file beside the control socket has everybody who serves."""
        words = ["grep", "--quiet", "--fixed-strings", "--text"]
        path = f"/run/srvd/{self.instance}.sock.state"
        return all(self.box.run(*words, name, path, check=False).returncode == 0 for name in self.workers())

    def processes(self) -> list[int]:
        """Of the unit's control group."""
        group = self.show("ControlGroup")
        files = f"/sys/fs/cgroup/systemd{group}/cgroup.procs /sys/fs/cgroup{group}/cgroup.procs"
        found = self.box.run("sh", "-c", f"cat {files} 2>/dev/null", check=False)
        return sorted({int(word) for word in found.stdout.split()})


def run_for(limit: float, command: list[str], log: Path) -> None:
    """The command, whose output goes to `log`. Raises `CannotRun` if it fails, or is not over after `limit` seconds;
    then nothing of it is left.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{command} did not end within {limit} s; its last line: {_last_line(log)}") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
    if code:
        raise CannotRun(f"{command} ended with {code}; its last line: {_last_line(log)}")


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["(none)"])[-1]


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def _mirror() -> str:
    """Where apt gets this release from."""
    words = ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    wanted = _os_release().get("VERSION_CODENAME", "")
    for line in done.stdout.splitlines():
        codename, component, uri = line.split(maxsplit=2)
        if (codename, component) == (wanted, "main") and uri.startswith("http"):
            return uri
    raise CannotRun("apt knows no mirror of this release")


def missing() -> str:
    """Why no box can be built here, or ""."""
    if os.geteuid() != 0:
        return "it needs root"
    lacking = [
        name for name in ("debootstrap", "systemd-nspawn", "nsenter", "unshare", "chroot") if not shutil.which(name)
    ]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


@contextmanager
def booted(folder: Path) -> Iterator[Box]:
    """A box that runs. `$SRVD_TEST_BOX` names a folder to keep it in, which saves a minute the next time.

    Raises `CannotRun`.
    """
    reason = missing()
    if reason:
        raise CannotRun(reason)
    kept = os.environ.get("SRVD_TEST_BOX", "")
    box = Box(Path(kept) if kept else folder / "box")
    try:
        box.build()
        box.boot()
        yield box
    finally:
        box.halt()
        if not kept:
            shutil.rmtree(box.root, ignore_errors=True)
