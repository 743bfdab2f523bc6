"""Claims about who may do what: the kernel says who it is, the configuration which role that has, default nobody."""

from __future__ import annotations

import grp
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srvd.core.model import Level
from srvd.daemon.control.peers import Roles
from srvd.errors import ConfigInvalid
from srvd.linux.processes.identity import OVERFLOW
from tests.support.fake_daemon import Fake

STRANGER, GROUP = 4_321, 5_432
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

ASK = """
import json, os, sys
from srvd.client.connection import Client
from srvd.errors import SrvdError
path, uid, gid, groups, methods = json.loads(sys.argv[1])
os.setgroups(groups); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
said = []
try:
    with Client.connect(path) as client:
        said.append(client.hello.role)
        for method, args in methods:
            try:
                client.call(method, args)
                said.append("ok")
            except SrvdError as exc:
                said.append(exc.code)
except SrvdError as exc:
    said.append(exc.code)
print(json.dumps(said))
"""


def ask(path: str, uid: int, gid: int, groups: list[int], *methods: tuple[str, dict[str, Any]]) -> list[str]:
    """What another user's client hears: its role, then "ok" or an error's code for each request."""
    given = json.dumps([path, uid, gid, groups, methods])
    done = subprocess.run([sys.executable, "-c", ASK, given], capture_output=True, text=True, timeout=30, check=True)
    return list(json.loads(done.stdout))


@pytest.fixture
def fake(open_folder: Path) -> Iterator[Fake]:
    roles = {"viewer": [f"%{GROUP}"], "operator": [str(STRANGER)], "admin": [str(OVERFLOW)]}
    with Fake(str(open_folder / "run" / "a.sock"), roles) as running:
        yield running


def test_root_and_the_daemons_own_user_are_admins_and_nobody_else_is() -> None:
    roles = Roles.resolve({}, 1000)
    assert [roles.of(uid, []) for uid in (0, 1000, 1001)] == ["admin", "admin", ""]
    assert not roles.shared
    assert not Roles.resolve({}, 0).shared


def test_names_and_numbers_of_users_and_groups_get_roles() -> None:
    user, group = next(user for user in pwd.getpwall() if user.pw_uid > 1), grp.getgrall()[0]
    roles = Roles.resolve({"viewer": ["%77", f"%{group.gr_name}"], "operator": ["88", user.pw_name]}, 1)
    assert (roles.of(88, []), roles.of(99, [5, 77])) == ("operator", "viewer")
    assert roles.of(user.pw_uid, []) == "operator"
    assert roles.groups[group.gr_gid] == "viewer"
    assert roles.shared


def test_the_highest_role_counts() -> None:
    roles = Roles.resolve({"viewer": ["7", "%1"], "operator": ["7", "%2"], "admin": ["%3"]}, 0)
    assert roles.of(7, []) == "operator"
    assert roles.of(7, [1, 3]) == "admin"
    assert roles.of(8, [1, 2]) == "operator"


def test_nobody_is_a_user_like_any_other_where_the_number_is_mapped() -> None:
    assert Roles.resolve({}, OVERFLOW).of(OVERFLOW, []) == "admin"
    roles = Roles.resolve({"viewer": [str(OVERFLOW)], "operator": [f"%{OVERFLOW}"]}, 0)
    assert roles.of(OVERFLOW, [5]) == "viewer"
    assert roles.of(12, [OVERFLOW]) == "operator"


UNMAPPED = ["unshare", "--user", "--map-root-user"]


@pytest.mark.skipif(
    subprocess.run([*UNMAPPED, "true"], capture_output=True, check=False).returncode != 0,
    reason="no user namespace can be made here",
)
@pytest.mark.parametrize(
    ("roles", "own", "asked", "said"),
    [
        ({"admin": [str(OVERFLOW)]}, 0, [], "refused: give a role to user 65534"),
        ({"admin": [f"%{OVERFLOW}"]}, 0, [], "refused: give a role to group 65534"),
        ({}, OVERFLOW, [], "role: "),
        ({"viewer": ["%5"]}, 0, [5], "role: "),
    ],
)
def test_where_it_is_not_mapped_it_stands_for_strangers_who_have_no_role(
    roles: dict[str, list[str]], own: int, asked: list[int], said: str
) -> None:
    code = (
        "import json, sys\nfrom srvd.daemon.control.peers import Roles\nfrom srvd.errors import ConfigInvalid\n"
        "roles, own, groups = json.loads(sys.argv[1])\n"
        "try: print('role:', Roles.resolve(roles, own).of(65534, groups))\n"
        "except ConfigInvalid as exc: print('refused:', exc.message)"
    )
    command = [*UNMAPPED, sys.executable, "-c", code, json.dumps([roles, own, asked])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(said)


@pytest.mark.parametrize("member", ["no-such-user-here", "%no-such-group-here"])
def test_a_name_that_nobody_has_is_refused(member: str) -> None:
    with pytest.raises(ConfigInvalid, match="no-such"):
        Roles.resolve({"viewer": [member]}, 0)


@needs_root
def test_an_operator_may_change_and_not_stop(fake: Fake) -> None:
    asked = [("status", {}), ("config", {}), ("reload", {"wait": False}), ("stop", {"wait": False})]
    assert ask(fake.path, STRANGER, STRANGER, [], *asked) == ["operator", "ok", "ok", "ok", "permission"]
    peer = fake.backend.asked[-1][2]
    assert (peer.uid, peer.gid) == (STRANGER, STRANGER)
    assert fake.logged[-1][0] is Level.WARNING
    assert f"uid {STRANGER}" in fake.logged[-1][1]


@needs_root
def test_a_supplementary_group_gives_a_role(fake: Fake) -> None:
    asked = [
        ("status", {}),
        ("why", {}),
        ("watch", {}),
        ("config", {}),
        ("scale", {"size": 1}),
        ("op.cancel", {"id": 1}),
    ]
    viewed = ["viewer", "ok", "ok", "ok", "permission", "permission", "permission"]
    assert ask(fake.path, 999, 999, [1, GROUP, 3], *asked) == viewed
    assert [method for method, _, _ in fake.backend.asked] == ["status", "why"]


@needs_root
def test_cancelling_takes_the_role_of_the_order(fake: Fake) -> None:
    upgrade = ask(fake.path, 0, 0, [], ("upgrade", {"wait": False}), ("reload", {"wait": False}))
    assert upgrade[1:] == ["ok", "ok"]
    asked = [("op.cancel", {"id": 1}), ("op.cancel", {"id": 2})]
    assert ask(fake.path, STRANGER, STRANGER, [], *asked)[1:] == ["permission", "ok"]


@needs_root
@pytest.mark.parametrize(("uid", "groups"), [(999, [1, 2]), (998, [])])
def test_a_user_without_a_role_is_told_so_and_gets_no_seat(fake: Fake, uid: int, groups: list[int]) -> None:
    assert ask(fake.path, uid, uid, groups, ("ping", {})) == ["permission"]
    assert fake.backend.asked == []
    assert not fake.do(lambda: fake.server._connections)
    assert "no role" in fake.logged[-1][1]


@needs_root
def test_without_roles_others_cannot_even_connect(open_folder: Path) -> None:
    with Fake(str(open_folder / "a.sock")) as fake:
        assert ask(fake.path, STRANGER, STRANGER, [], ("ping", {})) == ["permission"]
        assert fake.logged == []


@needs_root
def test_new_roles_hold_at_once_also_for_who_is_connected(fake: Fake) -> None:
    fake.do(lambda: fake.server.permit({"viewer": [str(STRANGER)]}))
    assert ask(fake.path, STRANGER, STRANGER, [], ("reload", {})) == ["viewer", "permission"]
    fake.do(lambda: fake.server.permit({}))
    assert os.stat(fake.path).st_mode & 0o777 == 0o600
    assert ask(fake.path, STRANGER, STRANGER, []) == ["permission"]


def test_wrong_roles_change_nothing(fake: Fake) -> None:
    before = fake.do(lambda: fake.server._opened().roles)
    with pytest.raises(ConfigInvalid):
        fake.do(lambda: fake.server.permit({"viewer": ["no-such-user-here"]}))
    assert fake.do(lambda: fake.server._opened().roles) == before
