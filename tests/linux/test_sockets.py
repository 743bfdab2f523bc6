"""Claims about addresses and the sockets that listen on them."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.errors import ConfigInvalid, SystemRefused
from srvd.linux import socket_files, sockets
from srvd.linux.socket_files import Access
from srvd.linux.sockets import Address, parse_address
from tests.support.daemon import free_port


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def listen(text: str, mode: int = 0o666) -> socket.socket:
    return sockets.open_listener(parse_address(text), 16, mode)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", Address("inet", "127.0.0.1", 8000)),
        ("localhost:0", Address("inet", "localhost", 0)),
        (":8000", Address("inet", "0.0.0.0", 8000)),
        ("[::1]:8000", Address("inet6", "::1", 8000)),
        ("[0:0:0:0:0:0:0:1]:8000", Address("inet6", "::1", 8000)),
        ("[fe80::1%lo]:80", Address("inet6", "fe80::1%lo", 80)),
        ("unix:/run/x.sock", Address("unix", "/run/x.sock")),
        ("unix:/run/../run/x.sock", Address("unix", "/run/x.sock")),
        ("unix:@name", Address("unix", "@name")),
        ("0.0.0.0", Address("inet", "0.0.0.0", 8000)),
        ("shop.example", Address("inet", "shop.example", 8000)),
        ("[::1]", Address("inet6", "::1", 8000)),
        ("fd:3", Address("fd", port=3)),
    ],
)
def test_every_way_to_write_an_address_is_understood(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "", "8000", "host:", "host:65536", "host:-1", "host:8a", "host:٣", "::1:8000", "[::1:80",
        "[zz]:80", "[]:80", "unix:", "unix:@", "unix:/" + "x" * 107, "unix:/a\0b", "fd:", "fd:x", "fd:-1", "a b:80",
        "http://host:80", "ä..b:80", "ä" * 64 + ":80",
    ],
)  # fmt: skip
def test_a_wrong_address_is_refused_with_the_forms_that_exist(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="read the address") as caught:
        parse_address(text)
    assert caught.value.hint


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_address("unix:x.sock").host == str(tmp_path / "x.sock")


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_a_tcp_listener_accepts_and_says_its_port(text: str) -> None:
    with listen(text) as listener:
        assert not listener.getblocking()
        assert not listener.get_inheritable()
        where = parse_address(sockets.describe(listener))
        assert where.port
        with socket.create_connection((where.host, where.port)), listener.accept()[0] as conn:
            assert conn.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_both_families_can_listen_on_one_port_side_by_side() -> None:
    with listen("[::]:0") as six, listen(f":{six.getsockname()[1]}") as four:
        assert sockets.describe(six).startswith("[::]:")
        assert sockets.describe(four).startswith("0.0.0.0:")


def test_a_busy_port_is_refused_with_its_address() -> None:
    with listen("127.0.0.1:0") as listener, pytest.raises(SystemRefused, match=r"listen on 127\.0\.0\.1:\d+: Address"):
        listen(sockets.describe(listener))


@pytest.mark.parametrize("text", ["no-such-host.invalid:80", "192.0.2.1:80", "unix:/no/such/folder/x.sock"])
def test_an_address_that_is_not_here_is_refused(text: str) -> None:
    with pytest.raises(SystemRefused, match="listen on"):
        listen(text)


def test_a_unix_socket_has_its_mode_from_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    mask = os.umask(0o027)
    try:
        with listen(f"unix:{path}", 0o660) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert sockets.describe(listener) == f"unix:{path}"
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    listen(f"unix:{path}").close()
    with listen(f"unix:{path}") as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.accept()[0].close()


def test_a_live_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen(f"unix:{path}") as listener:
        with pytest.raises(SystemRefused, match="another process listens"):
            listen(f"unix:{path}")
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
            for client in (one, two):  # fills the backlog: nobody could connect, and still it is in use
                client.setblocking(False)
                client.connect_ex(str(path))
            with pytest.raises(SystemRefused, match="another process listens"):
                listen(f"unix:{path}")


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link", "link to a file"])
def test_what_is_no_socket_is_never_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "target")
        if kind == "link to a file":
            (tmp_path / "target").write_text("precious")
    with pytest.raises(SystemRefused, match="no socket"):
        listen(f"unix:{path}")
    assert os.path.lexists(path)


def test_an_abstract_socket_needs_no_file() -> None:
    name = f"@srvd-test-{os.getpid()}"
    with listen(f"unix:{name}") as listener, socket.socket(socket.AF_UNIX) as client:
        assert sockets.describe(listener) == f"unix:{name}"
        assert socket_files.path_id(listener) is None
        client.connect("\0" + name[1:])


def test_an_inherited_socket_is_duplicated_and_left_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        theirs.set_inheritable(True)
        with listen(f"fd:{theirs.fileno()}") as listener:
            assert listener.getsockname() == theirs.getsockname()
            assert not listener.get_inheritable()
        assert not theirs.get_inheritable()
        listen(f"fd:{theirs.fileno()}").close()


def test_a_descriptor_that_is_no_stream_socket_is_refused() -> None:
    read, write = os.pipe()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for fd, reason in ((read, "non-socket"), (datagrams.fileno(), "stream"), (9999, "Bad file")):
            with pytest.raises(SystemRefused, match=reason):
                listen(f"fd:{fd}")
    os.close(read)
    os.close(write)


def seal_with_one_who_waits(text: str) -> str:
    """What became of somebody who came too late."""
    with listen(text) as listener:
        where = listener.getsockname()[:2]
        with socket.create_connection(where) as early:
            sockets.seal(listener, None)
            try:
                socket.create_connection(where, timeout=0.2).close()
                late = "connected"
            except (TimeoutError, ConnectionRefusedError) as exc:
                late = type(exc).__name__
            with listener.accept()[0] as conn:
                early.sendall(b"question")
                assert conn.recv(20) == b"question"
                conn.sendall(b"answer")
                assert early.recv(20) == b"answer"
    return late


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0"])
def test_a_sealed_listener_keeps_its_queue_and_takes_no_more(text: str) -> None:
    assert seal_with_one_who_waits(text) in ("TimeoutError", "ConnectionRefusedError")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can give up a privilege")
@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0"])
def test_a_listener_can_be_sealed_without_a_privilege(text: str) -> None:
    """Newer kernels let only the administrator of the network attach a filter to a TCP socket."""
    code = f"from tests.linux.test_sockets import *; print(seal_with_one_who_waits({text!r}))"
    command = ["setpriv", "--bounding-set=-net_admin,-net_raw", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() in ("TimeoutError", "ConnectionRefusedError"), done.stderr


def test_what_was_sealed_can_be_opened_again() -> None:
    with listen(f"127.0.0.1:{free_port()}") as listener:  # which no client is given while it is sealed
        sockets.seal(listener, None)
        if not sockets.unseal(listener):
            assert os.geteuid() != 0
            pytest.skip("takes CAP_NET_RAW")
        socket.create_connection(listener.getsockname(), timeout=10).close()
        assert sockets.unseal(listener)  # of no effect


def test_a_sealed_unix_listener_is_found_no_longer_and_keeps_its_queue(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen(f"unix:{path}") as listener, socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))
        sockets.seal(listener, socket_files.path_id(listener))
        assert not path.exists()
        listener.accept()[0].close()


def test_a_path_that_somebody_replaced_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen(f"unix:{path}") as listener:
        owned = socket_files.path_id(listener)
        assert owned is not None
        path.rename(tmp_path / "moved")
        assert not socket_files.unlink(owned)
        with listen(f"unix:{path}"):
            assert not socket_files.unlink(owned)
            assert path.exists()
        (tmp_path / "moved").rename(path)
        assert socket_files.unlink(owned)
        assert not path.exists()


def test_two_may_listen_on_one_port_if_both_allow_it() -> None:
    any_port = Address("inet", "127.0.0.1", 0)
    with sockets.open_listener(any_port, 8, 0o600, reuse_port=True) as first:
        same = any_port._replace(port=first.getsockname()[1])
        with sockets.open_listener(same, 8, 0o600, reuse_port=True) as second:
            assert sockets.describe(first) == sockets.describe(second)
        with pytest.raises(SystemRefused, match="in use"):
            sockets.open_listener(same, 8, 0o600)


def reaches(address: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as client:
        return client.connect_ex(address) == 0


def test_every_address_of_ipv6_is_every_address_if_asked_for_both() -> None:
    every = Address("inet6", "::", 0)
    with sockets.open_listener(every, 8, 0o600, both=True) as listener:
        port = listener.getsockname()[1]
        assert (reaches(("127.0.0.1", port)), reaches(("::1", port))) == (True, True)
        assert sockets.families(listener) == "IPv4 as well"
    with sockets.open_listener(every, 8, 0o600) as listener:
        port = listener.getsockname()[1]
        assert (reaches(("127.0.0.1", port)), reaches(("::1", port))) == (False, True)
        assert sockets.families(listener) == "IPv6 only"
    with listen("[::1]:0") as listener:
        assert sockets.families(listener) == ""


def test_if_another_process_has_the_port_for_ipv4_it_is_ipv6_only() -> None:
    with listen("127.0.0.1:0") as other:
        address = Address("inet6", "::", other.getsockname()[1])
        with sockets.open_listener(address, 8, 0o600, both=True) as listener:
            assert sockets.families(listener) == "IPv6 only"
        with sockets.open_listener(address, 8, 0o600), pytest.raises(SystemRefused, match="in use"):
            sockets.open_listener(address, 8, 0o600, both=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_file_of_a_unix_socket_gets_owner_group_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with listen(f"unix:{path}") as listener:
        owned = socket_files.path_id(listener)
        assert owned is not None
        socket_files.grant(owned, Access(0o660, 33, 44))
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 33, 44)
        socket_files.grant(owned, Access(0o600, -1, 45))
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_uid, path.stat().st_gid) == (0o600, 33, 45)


@pytest.mark.parametrize("what", ["a link", "another file", "another socket", "nothing"])
def test_what_stands_in_its_place_is_not_touched(tmp_path: Path, what: str) -> None:
    """Whoever may write to the folder of a socket could have any file of root's opened to all."""
    path, secret = tmp_path / "x.sock", tmp_path / "secret"
    secret.touch(0o600)
    with listen(f"unix:{path}") as listener, socket.socket(socket.AF_UNIX) as other:
        owned = socket_files.path_id(listener)
        assert owned is not None
        path.rename(tmp_path / "aside")
        match what:
            case "a link":
                path.symlink_to(secret)
            case "another file":
                secret.rename(path)
                secret = path
            case "another socket":
                os.fchmod(other.fileno(), 0o600)
                other.bind(str(path))
                secret = path
        socket_files.grant(owned, Access(0o666))
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "aside").stat().st_mode) == 0o666
