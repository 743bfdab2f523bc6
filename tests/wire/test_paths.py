"""Claims about where control sockets are."""

from __future__ import annotations

import pytest

from srvd.errors import BadArgs
from srvd.wire.paths import check_name, lock_path, rundir, rundirs, socket_path


def test_root_has_the_systems_directory_whatever_the_environment_says() -> None:
    assert rundir(0, {"XDG_RUNTIME_DIR": "/run/user/0"}) == "/run/srvd"
    assert rundirs(0, {}) == ("/run/srvd",)


def test_a_user_has_a_directory_of_its_own_and_looks_at_the_systems_too() -> None:
    usual = ("/run/user/1000/srvd", "/tmp/srvd-1000", "/run/srvd")
    assert rundirs(1000, {"XDG_RUNTIME_DIR": "/run/user/1000/"}) == usual
    assert rundirs(1000, {"XDG_RUNTIME_DIR": "/srv/run"}) == ("/srv/run/srvd", *usual)
    assert sorted(rundirs(1000, {})) == sorted(usual)
    assert rundirs(0, {"XDG_RUNTIME_DIR": "/run/user/0"}) == ("/run/srvd",)


@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "run"}])
def test_without_a_runtime_directory_it_is_one_below_tmp_named_by_the_uid(environ: dict[str, str]) -> None:
    assert rundir(1000, environ) == "/tmp/srvd-1000"


def test_a_socket_is_named_after_its_instance_and_its_lock_after_the_socket() -> None:
    assert socket_path("shop", "/run/srvd") == "/run/srvd/shop.sock"
    assert lock_path("/run/srvd/shop.sock") == "/run/srvd/shop.sock.lock"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "a b", "ä", "a\n", "x" * 65])
def test_what_could_leave_the_directory_or_confuse_a_shell_is_no_name(name: str) -> None:
    with pytest.raises(BadArgs):
        check_name(name)


@pytest.mark.parametrize("name", ["shop", "shop-2", "a_b.c", "7", "x" * 64])
def test_these_are_names(name: str) -> None:
    assert check_name(name) == name
