"""Claims about which daemon `srvctl` asks when it is not told, or told twice."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.client import find as finding
from srvd.client.find import Named, find, start_hint
from srvd.errors import BadArgs, NoDaemon
from tests.conftest import Starter

USER = os.getuid() or 1000


class Places:
    """A runtime directory with sockets in it; the system's directory is out of the test's reach and hands."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "srvd"
        self.directory.mkdir()
        self.environ = {"XDG_RUNTIME_DIR": str(root)}
        self.sockets: list[socket.socket] = []

    def add(self, name: str, *, alive: bool) -> str:
        path = str(self.directory / f"{name}.sock")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        if alive:
            sock.listen()
        self.sockets.append(sock)
        return path

    def elsewhere(self, folder: str, name: str = "shop", owner: int = USER) -> str:
        """A living one below the test's root."""
        directory = self.directory.parent / folder
        directory.mkdir(parents=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(directory / f"{name}.sock"))
        sock.listen()
        self.sockets.append(sock)
        os.chown(directory, owner, -1)
        return str(directory / f"{name}.sock")

    def find(self, socket: str = "", name: str = "", **environ: str) -> str:
        return find(Named(socket, name), {**self.environ, **environ}, USER)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    monkeypatch.setattr("srvd.wire.paths.SYSTEM_RUNDIR", str(tmp_path / "none"))
    monkeypatch.setattr("srvd.wire.paths.USERS_RUNDIR", str(tmp_path / "users"))
    monkeypatch.setattr("srvd.wire.paths.TEMPORARY", str(tmp_path / "temporary"))
    made = Places(tmp_path)
    yield made
    for sock in made.sockets:
        sock.close()


def test_the_only_daemon_is_found(places: Places) -> None:
    path = places.add("shop", alive=True)
    assert places.find() == path


def test_leftovers_of_dead_daemons_do_not_count_beside_a_living_one(places: Places) -> None:
    places.add("old", alive=False)
    living = places.add("shop", alive=True)
    assert places.find() == living


def test_a_single_leftover_is_found_so_that_the_error_names_it(places: Places) -> None:
    assert places.add("old", alive=False) == places.find()


def test_of_several_one_has_to_be_chosen(places: Places) -> None:
    shop, blog = places.add("shop", alive=True), places.add("blog", alive=True)
    with pytest.raises(BadArgs, match="several") as refused:
        places.find()
    assert shop in refused.value.message
    assert "-n NAME" in refused.value.hint
    assert places.find(name="blog") == blog
    assert places.find(SRVD_NAME="blog") == blog


def test_where_there_is_none_the_places_are_named(places: Places) -> None:
    with pytest.raises(NoDaemon, match=str(places.directory)) as refused:
        places.find()
    assert "srvd start" in refused.value.hint


def test_a_daemon_whose_socket_answers_is_offered_by_it_and_not_by_a_signal_that_would_reload_it(
    starter: Starter, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = starter.new()
    shop.socket = places.directory / "shop.sock"
    shop.command[shop.command.index("--socket") + 1] = str(shop.socket)
    shop.start()
    monkeypatch.setattr("srvd.client.find.rundirs", lambda uid, environ: [str(places.directory)])
    all_daemons = finding._daemons  # those of other tests run as well, and no more than four are named
    monkeypatch.setattr(finding, "_daemons", lambda: [one for one in all_daemons() if one[0] == shop.pid])
    assert f"such as {shop.socket}" in start_hint()
    assert f"pid {shop.pid} " not in start_hint()
    shop.socket.unlink()
    assert f"pid {shop.pid} " in start_hint()


def test_the_command_line_goes_before_the_environment_and_a_socket_before_a_name(places: Places) -> None:
    path = places.add("shop", alive=True)
    assert places.find(socket="/a", SRVD_SOCKET="/b") == "/a"
    assert places.find(SRVD_SOCKET="/b", SRVD_NAME="shop") == "/b"
    assert places.find(name="shop", SRVD_SOCKET="/b") == path
    with pytest.raises(BadArgs, match="both"):
        places.find(socket="/a", name="shop")


def test_a_name_without_a_socket_is_looked_for_where_it_would_be(places: Places) -> None:
    assert places.find(name="shop") == str(places.directory / "shop.sock")


def test_a_directory_that_may_not_be_looked_into_is_said_to_be_one(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.directory.chmod(0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(places.directory))  # root may everything
    with pytest.raises(NoDaemon) as refused:
        places.find()
    assert f"a daemon in {places.directory}, which your user may not look into" in refused.value.hint
    assert "`srvd start`" in refused.value.hint
    assert "roles" in refused.value.hint
    assert places.find(name="shop") == str(places.directory / "shop.sock")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to somebody else")
def test_sockets_in_a_directory_of_somebody_else_are_not_trusted(places: Places) -> None:
    places.add("shop", alive=True)
    os.chown(places.directory, 4321, 4321)
    with pytest.raises(NoDaemon):
        places.find()
    for name in ("shop", "none"):
        with pytest.raises(NoDaemon, match=f"{places.directory} belongs to another user") as refused:
            places.find(name=name)
        assert refused.value.hint.endswith(f"-s {places.directory}/{name}.sock")
    with pytest.raises(NoDaemon, match="another user"):
        places.find(SRVD_NAME="shop")


@pytest.mark.parametrize("folder", [f"users/{USER}/srvd", f"temporary/srvd-{USER}"])
def test_a_daemon_of_the_user_is_found_wherever_its_environment_has_put_it(places: Places, folder: str) -> None:
    path = places.elsewhere(folder)
    assert places.find() == places.find(name="shop") == path
    assert find(Named(), {}, USER) == path
    other = places.add("blog", alive=True)
    with pytest.raises(BadArgs, match="several") as refused:
        places.find()
    assert other in refused.value.message
    assert path in refused.value.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root looks at the places of all users")
def test_root_looks_at_the_places_of_all_users_if_it_has_none_of_its_own(places: Places) -> None:
    first = places.elsewhere("users/1234/srvd", "shop", 1234)
    assert find(Named(), {}, 0) == find(Named(name="shop"), {}, 0) == first
    second = places.elsewhere("temporary/srvd-4321", "shop", 4321)
    places.elsewhere("temporary/srvd-999", "foreign", 998)  # not its own: whoever made it could be anybody
    for named in (Named(), Named(name="shop")):
        with pytest.raises(BadArgs, match="several") as refused:
            find(named, {}, 0)
        assert first in refused.value.message
        assert second in refused.value.message
        assert "foreign" not in refused.value.message
    own = places.elsewhere("none", "shop", 0)
    assert find(Named(), {}, 0) == find(Named(name="shop"), {}, 0) == own
