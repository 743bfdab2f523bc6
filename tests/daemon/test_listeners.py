"""Claims about the listeners of several configurations, and about what a process writes to its stderr."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from srvd.config.settings import ListenerSettings
from srvd.core.model import Revision
from srvd.daemon.children.output import LINE, TAIL, Output
from srvd.daemon.children.starting.spawn import keyless
from srvd.daemon.children.zygote import Fronts
from srvd.daemon.listeners import Listeners
from srvd.errors import ConfigInvalid, SystemRefused
from srvd.linux import sockets
from srvd.tls.material import Material
from tests.conftest import Starter
from tests.support.daemon import free_port, toml
from tests.support.performer import open_fds
from tests.support.waiting import wait_for

ONE, TWO, THREE = Revision(1), Revision(2), Revision(3)


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    before = len(open_fds())
    listeners = Listeners()
    yield listeners
    listeners.close()
    wait_for(lambda: len(open_fds()) == before)  # a thread closes them


def wanted(*bind: str, name: str = "web", mode: str = "0666", backlog: int = 64) -> dict[str, ListenerSettings]:
    return {name: ListenerSettings(name=name, bind=bind, mode=mode, backlog=backlog)}


def test_equal_addresses_share_one_socket_over_configurations(listeners: Listeners) -> None:
    listeners.prepare(ONE, wanted("127.0.0.1:0"))
    listeners.prepare(TWO, wanted("127.0.0.1:0", "[::1]:0"))
    assert listeners.of(ONE, ())[0][1] is listeners.of(TWO, ())[0][1]
    assert [address["address"][:4] for address in listeners.described()] == ["127.", "[::1"]


def test_two_daemons_may_share_a_port_that_both_of_them_share(listeners: Listeners) -> None:
    listeners.prepare(ONE, {"web": ListenerSettings("web", bind=("127.0.0.1:0",), reuse_port=True)})
    address = listeners.described()[0]["address"]
    other = Listeners()
    with closing(other):
        with pytest.raises(SystemRefused, match="in use"):
            other.prepare(ONE, wanted(address))
        other.prepare(ONE, {"web": ListenerSettings("web", bind=(address,), reuse_port=True)})
        assert other.described() == listeners.described()


def test_a_listener_whose_keys_are_gone_is_not_served_in_the_clear(listeners: Listeners) -> None:
    settings = {
        "plain": ListenerSettings("plain", bind=("127.0.0.1:0",)),
        "safe": ListenerSettings("safe", bind=("127.0.0.1:0",), certificate=("safe.pem",)),
    }
    listeners.prepare(ONE, settings)
    assert keyless(listeners.of(ONE, ()), Fronts(settings, {})) == ["safe"]
    assert keyless(listeners.of(ONE, ("plain",)), Fronts(settings, {})) == []
    known = {"safe": Material((), b"", "none", "", "1.2")}
    assert keyless(listeners.of(ONE, ()), Fronts(settings, known)) == []


def test_a_pool_gets_the_listeners_it_names_in_their_order(listeners: Listeners) -> None:
    listeners.prepare(ONE, wanted("127.0.0.1:0", "[::1]:0", name="a") | wanted("127.0.0.2:0", name="b"))
    assert [name for name, _ in listeners.of(ONE, ())] == ["a", "a", "b"]
    assert [name for name, _ in listeners.of(ONE, ("b",))] == ["b"]
    assert listeners.of(TWO, ()) == []


def test_one_refused_address_leaves_none_of_the_new_ones_open(listeners: Listeners, tmp_path: Path) -> None:
    listeners.prepare(ONE, wanted("127.0.0.1:0"))
    before = len(open_fds())
    path = tmp_path / "x.sock"
    with socket.create_server(("127.0.0.1", 0)) as busy, pytest.raises(SystemRefused):
        listeners.prepare(TWO, wanted("127.0.0.1:0", f"unix:{path}", f"127.0.0.1:{busy.getsockname()[1]}"))
    wait_for(lambda: len(open_fds()) == before)  # a thread closes them
    assert not path.exists()
    assert listeners.of(TWO, ()) == []
    socket.create_connection(listeners.of(ONE, ())[0][1].getsockname()).close()


def test_what_no_configuration_names_any_more_is_closed(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    listeners.prepare(ONE, wanted(f"unix:{path}", "127.0.0.1:0"))
    listeners.prepare(TWO, wanted("127.0.0.1:0"))
    listeners.drop(ONE)
    assert not path.exists()
    assert len(listeners.described()) == 1
    listeners.drop(THREE)
    listeners.drop(TWO)
    assert listeners.described() == []


def test_mode_and_backlog_change_when_the_configuration_comes_into_force(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    listeners.prepare(ONE, wanted(f"unix:{path}", mode="0600"))
    listeners.prepare(TWO, wanted(f"unix:{path}", mode="0660", backlog=1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listeners.adopt((TWO,))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_two_listeners_that_ask_for_any_port_are_two_and_keep_theirs(listeners: Listeners) -> None:
    both = wanted("127.0.0.1:0", "127.0.0.1:0", name="a") | wanted("127.0.0.1:0", name="b")
    listeners.prepare(ONE, both)
    listeners.prepare(TWO, both)
    ports = [sock.getsockname()[1] for _, sock in listeners.of(ONE, ())]
    assert len(set(ports)) == 3
    assert ports == [sock.getsockname()[1] for _, sock in listeners.of(TWO, ())]


def test_a_listener_that_nothing_in_force_names_rests_and_comes_back(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.create_server(("127.0.0.1", 0)) as free:
        tcp = f"127.0.0.1:{free.getsockname()[1]}"
    listeners.prepare(ONE, wanted(tcp, f"unix:{path}"))
    listeners.prepare(TWO, wanted("127.0.0.1:0"))
    where = listeners.of(ONE, ())[0][1].getsockname()
    listeners.adopt((TWO,))
    assert not path.exists()
    assert len(listeners.described()) == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, timeout=1)
    with pytest.raises(SystemRefused):  # it is still ours
        sockets.open_listener(sockets.parse_address(tcp), 1, 0)
    listeners.adopt((ONE, TWO))
    socket.create_connection(where, timeout=1).close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listeners.adopt((TWO,))
    listeners.drop(ONE)
    assert os.listdir(tmp_path) == []


def test_a_path_that_somebody_took_is_not_moved_about(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    listeners.prepare(ONE, wanted(f"unix:{path}"))
    listeners.prepare(TWO, {})
    path.unlink()
    path.write_text("precious")
    for revisions in ((TWO,), (ONE, TWO), (TWO,)):
        listeners.adopt(revisions)
    listeners.drop(ONE)
    assert path.read_text() == "precious"


def test_sealing_spares_the_sockets_of_the_environment(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        listeners.prepare(ONE, wanted("127.0.0.1:0", f"unix:{path}", f"fd:{theirs.fileno()}"))
        listeners.seal()
        assert not listeners.close_emptied()
        assert not path.exists()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listeners.of(ONE, ())[0][1].getsockname(), timeout=5)
        socket.create_connection(theirs.getsockname(), timeout=5).close()


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0"])
def test_a_copy_of_a_listener_that_somebody_kept_does_not_hold_its_port(text: str) -> None:
    with closing(Listeners()) as listeners:
        listeners.prepare(ONE, wanted(text))
        kept = listeners.of(ONE, ())[0][1].dup()  # as a grandchild of a worker does
        address = sockets.describe(kept)
    with kept, closing(Listeners()) as again:
        again.prepare(ONE, wanted(address))
        assert sockets.describe(again.of(ONE, ())[0][1]) == address
        with pytest.raises(OSError, match="Invalid argument"):
            kept.accept()


def test_a_listener_of_the_environment_listens_on_when_it_is_closed_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        with closing(Listeners()) as listeners:
            listeners.prepare(ONE, wanted(f"fd:{theirs.fileno()}"))
        socket.create_connection(theirs.getsockname(), timeout=5).close()


@pytest.fixture
def pipe() -> Iterator[tuple[Output, int, list[str]]]:
    lines: list[str] = []
    read, write = os.pipe()
    os.set_blocking(write, False)
    yield Output(read, lines.append), write, lines
    os.close(write)


Pipe = tuple[Output, int, list[str]]


def test_lines_come_whole_however_they_were_written(pipe: Pipe) -> None:
    output, write, lines = pipe
    for part in (b"one\ntw", b"o\n\n", "drei \u20ac\n".encode()[:6], "drei \u20ac\n".encode()[6:], b"last"):
        os.write(write, part)
        assert output.read()
    assert lines == ["one", "two", "", "drei \u20ac"]
    output.finish()
    assert lines[-1] == "last"
    assert output.tail == "one\ntwo\n\ndrei \u20ac\nlast"


def test_a_line_without_end_comes_in_pieces_and_is_not_kept(pipe: Pipe) -> None:
    output, write, lines = pipe
    os.write(write, b"x" * (3 * LINE + 5))
    wait_for(lambda: output.read() and len(lines) == 3)
    assert [len(line) for line in lines] == [LINE] * 3
    os.write(write, b"\xff\n")
    output.finish()
    assert lines[-1] == "xxxxx\ufffd"


def test_a_flood_of_short_lines_is_taken_in_small_portions(pipe: Pipe) -> None:
    output, write, lines = pipe
    os.write(write, b"\n" * 65536)
    turns: list[int] = []
    while sum(turns) < 65536:
        before = len(lines)
        assert output.read()
        turns.append(len(lines) - before)
    assert max(turns[:1]) <= 4096
    assert max(turns[1:]) <= 256
    os.write(write, b"calm\n")
    assert output.read()
    os.write(write, b"x" * 5000 + b"\n")
    output.finish()
    assert lines[-2:] == ["calm", "x" * 5000]


def test_the_tail_begins_with_a_line_and_is_bounded(pipe: Pipe) -> None:
    output, write, _ = pipe
    os.write(write, b"".join(b"line %04d\n" % number for number in range(1000)))
    output.finish()
    assert len(output.tail) <= TAIL
    assert output.tail.startswith("line ")
    assert output.tail.endswith("line 0999\n")


def test_the_line_of_a_fatal_error_is_kept_however_long_the_stacks_are(pipe: Pipe) -> None:
    output, write, _ = pipe
    os.write(write, b"before\nFatal Python error: Aborted\n\n" + b"  File x\n" * 1000)
    output.finish()
    assert output.tail.startswith("Fatal Python error: Aborted\n  File x\n")
    assert "before" not in output.tail
    assert output.save().fatal == b"Fatal Python error: Aborted"
    taken = Output(os.open("/dev/null", os.O_RDONLY), print, output.save())
    assert taken.tail == output.tail
    os.close(taken.fd)


def test_the_stack_of_the_thread_that_met_a_fatal_error_is_kept_as_well(pipe: Pipe) -> None:
    output, write, _ = pipe
    others = b"Thread 0x2 (most recent call first):\n" + b"  File x\n" * 300
    current = b"Current thread 0x1 (most recent call first):\n  File a\n  File b\n"
    os.write(write, b"\n".join([b"Fatal Python error: Aborted\n", others, current, others, others]))
    output.finish()
    assert output.tail.startswith("Fatal Python error: Aborted\n" + current.decode() + "\n  File x\n")


def test_the_end_of_a_process_does_not_wait_for_others_that_hold_the_pipe(pipe: Pipe) -> None:
    output, write, lines = pipe
    os.write(write, b"bye\n")
    output.finish()  # the write end is open
    assert lines == ["bye"]


def test_a_listener_that_a_stop_has_closed_for_good_is_opened_anew(listeners: Listeners) -> None:
    """What an adoption finds of a stop under way, and may not undo without a privilege."""
    port = free_port()
    listeners.prepare(ONE, wanted(f"127.0.0.1:{port}"))
    closed = listeners.of(ONE, ())[0][1]
    sockets.seal(closed, None)
    assert listeners.lost() == [f"127.0.0.1:{port}: it was closed for a stop"]
    sockets.end(closed)
    listeners.prepare(TWO, wanted(f"127.0.0.1:{port}"))
    assert listeners.of(TWO, ())[0][1] is not closed
    listeners.adopt([TWO])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert listeners.lost() == []


def test_a_listener_is_made_anew_once_and_shared_by_later_configurations(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    listeners.prepare(ONE, wanted(f"unix:{path}"))
    path.unlink()
    listeners.prepare(TWO, wanted(f"unix:{path}"))
    listeners.prepare(THREE, wanted(f"unix:{path}"))
    assert listeners.of(ONE, ())[0][1] is not listeners.of(TWO, ())[0][1] is listeners.of(THREE, ())[0][1]
    listeners.drop(TWO)
    listeners.drop(ONE)
    assert path.exists()
    assert [one["address"] for one in listeners.described()] == [f"unix:{path}"]


def test_a_listener_that_was_made_anew_needs_no_further_reload(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    listeners.prepare(ONE, wanted(f"unix:{path}"))
    listeners.of(ONE, ())[0][1].shutdown(socket.SHUT_RDWR)
    assert listeners.lost(shut=True) == [f"unix:{path}: a process that has it has shut it down"]
    listeners.prepare(TWO, wanted(f"unix:{path}"))
    assert listeners.lost(shut=True) == []  # while the former generation has the former socket


def test_every_address_of_ipv6_serves_both_unless_ipv4_is_bound_apart(listeners: Listeners) -> None:
    port = free_port()
    listeners.prepare(ONE, wanted(f"[::]:{port}"))
    assert listeners.announced() == [f"listening on [::]:{port} (web), IPv4 as well"]
    with pytest.raises(SystemRefused, match="serves IPv4 as well; nothing was changed"):
        listeners.prepare(TWO, wanted(f"[::]:{port}", f"127.0.0.1:{port}"))
    with closing(Listeners()) as others:
        port = free_port()
        others.prepare(ONE, wanted(f"[::]:{port}", f"0.0.0.0:{port}"))
        assert others.announced()[0] == f"listening on [::]:{port} (web), IPv6 only"
        assert "IPv6 only, as it was opened" in others.prepare(TWO, wanted(f"[::]:{port}"))[0]


def test_ipv6_for_a_port_that_is_open_for_ipv4_has_to_be_said_for_both(listeners: Listeners) -> None:
    """Else clients of IPv4 would be lost with the reload."""
    port = free_port()
    listeners.prepare(ONE, wanted(f"0.0.0.0:{port}"))
    with pytest.raises(SystemRefused, match="this daemon has its port for IPv4"):
        listeners.prepare(TWO, wanted(f"[::]:{port}"))
    assert listeners.prepare(TWO, wanted(f"[::]:{port}", f"0.0.0.0:{port}")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_reload_gives_a_unix_socket_another_owner(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    settings = wanted(f"unix:{path}", mode="0660")["web"]
    listeners.prepare(ONE, {"web": settings._replace(owner="www-data", group="33")})
    assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (33, 33, 0o660)
    listeners.prepare(TWO, {"web": settings._replace(group="44", mode="0600")})
    assert path.stat().st_gid == 33
    listeners.adopt([TWO])
    assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (33, 44, 0o600)
    with pytest.raises(ConfigInvalid, match="no owner 'no-such-user'"):
        listeners.prepare(THREE, {"web": settings._replace(owner="no-such-user")})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_proxy_of_another_group_reaches_a_socket_that_is_its_own(starter: Starter) -> None:
    srvd = starter.new(
        config=toml(bind="unix:w.sock").replace("[pools.web]", 'mode = "0660"\ngroup = "www-data"\n[pools.web]')
    )
    srvd.let_others_in()
    srvd.start()
    code = (
        f"import os, socket; os.setgroups([]); os.setresgid(*[{{0}}] * 3); os.setresuid(*[4321] * 3); "
        f"print(socket.socket(socket.AF_UNIX).connect_ex({str(srvd.folder / 'w.sock')!r}))"
    )
    for group, outcome in ((33, 0), (44, errno.EACCES)):
        command = [sys.executable, "-W", "ignore", "-c", code.format(group)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert int(done.stdout) == outcome
