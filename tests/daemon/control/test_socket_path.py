"""Claims about the control socket's place: who owns it is who holds the lock, and nothing of others is removed."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.client.connection import Client
from srvd.daemon.control.socket_path import SocketPath
from srvd.errors import SystemRefused
from tests.support.waiting import wait_for


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "shop.sock")


@pytest.fixture
def claim(path: str) -> Iterator[SocketPath]:
    made = SocketPath.open(path, shared=False)
    yield made
    made.close()


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_directory_is_made_and_all_is_private(claim: SocketPath) -> None:
    assert mode(claim.path) == 0o600
    assert mode(os.path.dirname(claim.path)) == 0o700
    assert mode(claim.path + ".lock") == 0o600


def test_a_shared_socket_lets_others_connect_whatever_the_umask(path: str) -> None:
    before = os.umask(0o077)
    try:
        claim = SocketPath.open(path, shared=True)
    finally:
        os.umask(before)
    assert mode(path) == 0o666
    assert mode(os.path.dirname(path)) == 0o755
    claim.share(shared=False)
    assert mode(path) == 0o600
    claim.close()


@pytest.mark.parametrize("later", ["at the start", "by a reload"])
def test_roles_open_the_folder_that_a_start_without_them_has_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    own, other = tmp_path / "srvd", tmp_path / "other"
    monkeypatch.setattr("srvd.daemon.control.socket_path.rundir", lambda uid, environ: str(own))
    for folder, mode in ((own, 0o755), (other, 0o700)):  # what an administrator has made stays as it was made
        SocketPath.open(str(folder / "a.sock"), shared=False).close()
        claim = SocketPath.open(str(folder / "a.sock"), shared=later == "at the start")
        if later == "by a reload":
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            claim.share(shared=True)
        assert stat.S_IMODE(folder.stat().st_mode) == mode
        claim.close()


def test_closing_leaves_nothing_behind(path: str) -> None:
    SocketPath.open(path, shared=False).close()
    assert os.listdir(os.path.dirname(path)) == []


def test_descriptors_are_closed_on_exec(claim: SocketPath) -> None:
    held = [int(fd) for fd in os.listdir("/proc/self/fd")]
    ours = [
        fd for fd in held if os.path.exists(f"/proc/self/fd/{fd}") and ".lock" in os.readlink(f"/proc/self/fd/{fd}")
    ]
    assert [os.get_inheritable(fd) for fd in [*ours, claim.listener.fileno()]] == [False, False]


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(claim: SocketPath) -> None:
    with pytest.raises(SystemRefused, match=f"pid {os.getpid()}") as refused:
        SocketPath.open(claim.path, shared=False)
    assert refused.value.detail == {"pid": os.getpid(), "socket": claim.path}
    assert os.path.exists(claim.path)


def test_a_full_disk_keeps_nobody_from_holding_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", _full)
        claim = SocketPath.open(path, shared=False)
    with pytest.raises(SystemRefused, match="already holds it"):
        SocketPath.open(path, shared=False)
    claim.close()


def _full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_two_daemons_on_one_path_the_second_is_refused_and_the_first_serves_on(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    command = [sys.executable, "-m", "tests.support.fake_daemon", path, "shop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "ready\n"
            second = subprocess.run(command, capture_output=True, text=True, timeout=30)
            assert second.returncode != 0
            assert f"already holds it (pid {first.pid})" in second.stderr
            with Client.connect(path) as client:
                assert client.call("ping")["pid"] == first.pid
        finally:
            first.terminate()


def test_the_socket_of_a_killed_daemon_is_replaced(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    command = [sys.executable, "-m", "tests.support.fake_daemon", path, "shop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        first.send_signal(signal.SIGKILL)
    assert os.path.exists(path)
    assert os.path.exists(path + ".lock")
    SocketPath.open(path, shared=False).close()


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    Path(path).write_text("precious")
    with pytest.raises(SystemRefused, match="no socket"):
        SocketPath.open(path, shared=False)
    assert Path(path).read_text() == "precious"
    assert os.listdir(os.path.dirname(path)) == ["shop.sock"]


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_nothing_else_is_replaced_either(path: str, kind: str, tmp_path: Path) -> None:
    os.mkdir(os.path.dirname(path))
    match kind:
        case "link":
            (tmp_path / "target").write_text("")
            os.symlink(tmp_path / "target", path)
        case "directory":
            os.mkdir(path)
        case _:
            os.mkfifo(path)
    with pytest.raises(SystemRefused, match="left alone"):
        SocketPath.open(path, shared=False)
    assert os.path.lexists(path)


def test_another_program_that_listens_there_is_left_alone(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(SystemRefused, match="another program"):
            SocketPath.open(path, shared=False)
        assert os.path.exists(path)


def test_a_lock_file_that_is_a_link_is_refused(path: str, tmp_path: Path) -> None:
    os.mkdir(os.path.dirname(path))
    (tmp_path / "target").write_text("precious")
    os.symlink(tmp_path / "target", path + ".lock")
    with pytest.raises(SystemRefused):
        SocketPath.open(path, shared=False)
    assert (tmp_path / "target").read_text() == "precious"


def test_a_directory_that_everyone_may_write_to_is_refused(path: str) -> None:
    os.mkdir(os.path.dirname(path))
    os.chmod(os.path.dirname(path), 0o777)
    with pytest.raises(SystemRefused, match="not writable by everyone"):
        SocketPath.open(path, shared=False)
    os.chmod(os.path.dirname(path), 0o1777)  # like /tmp: nobody can replace what is ours
    SocketPath.open(path, shared=False).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to somebody else")
@pytest.mark.parametrize("linked", [False, True])
def test_a_directory_of_somebody_else_is_refused(path: str, tmp_path: Path, linked: bool) -> None:
    directory = os.path.dirname(path)
    if linked:
        os.symlink(tmp_path, directory)
        os.lchown(directory, 4321, 4321)
    else:
        os.mkdir(directory)
        os.chown(directory, 4321, 4321)
    with pytest.raises(SystemRefused, match="directory of root or of the daemon's user"):
        SocketPath.open(path, shared=False)


def test_a_missing_parent_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemRefused, match="No such file"):
        SocketPath.open(str(tmp_path / "a" / "b" / "c.sock"), shared=False)


def test_a_path_that_is_too_long_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(SystemRefused, match="at most 107 bytes") as refused:
        SocketPath.open(str(tmp_path / ("x" * 120)), shared=False)
    assert "--socket" in refused.value.hint


def test_a_socket_that_was_replaced_meanwhile_is_not_removed(path: str) -> None:
    claim = SocketPath.open(path, shared=False)
    os.unlink(path)
    Path(path).write_text("not ours")
    claim.close()
    assert Path(path).read_text() == "not ours"


def test_who_opened_the_lock_of_an_owner_that_leaves_takes_a_new_one(path: str) -> None:
    racers = 4
    os.mkdir(os.path.dirname(path))
    script = (
        "import sys; from srvd.daemon.control.socket_path import SocketPath; from srvd.errors import SystemRefused\n"
        "won = 0\n"
        "while won < 30:\n"
        "    try: claim = SocketPath.open(sys.argv[1], shared=False)\n"
        "    except SystemRefused: continue\n"
        "    with open(sys.argv[1] + '.turn', 'x'): won += 1\n"  # fails when another one holds the claim too
        "    import os; os.unlink(sys.argv[1] + '.turn'); claim.close()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, path]) for _ in range(racers)]
    wait_for(lambda: all(one.poll() is not None for one in running), within=60)
    assert [one.returncode for one in running] == [0] * racers
    assert os.listdir(os.path.dirname(path)) == []
