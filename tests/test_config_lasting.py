"""Claims about what a reload can change of the daemon's own settings."""

from __future__ import annotations

from srvd.config.lasting import with_lasting
from srvd.config.load import load


def test_a_setting_of_the_daemon_stays_and_is_named_with_its_place() -> None:
    running = load(None, {"--name": "shop"}, {})
    fresh = load(None, {"--name": "shop", "--log-level": "debug"}, {"SRVD_SOCKET": "/run/x.sock"})
    lasting = with_lasting(running, fresh)
    assert lasting.daemon == running.daemon
    assert lasting.origins["daemon.log_level"] == "default"
    assert [warning.split(":")[0] for warning in lasting.warnings] == ["environment SRVD_SOCKET", "flag --log-level"]
    assert "'info' stays in force" in lasting.warnings[1]


def test_roles_and_all_of_pools_and_listeners_are_taken_over() -> None:
    running = load(None, {}, {})
    fresh = load(None, {"--workers": "7", "--bind": "127.0.0.1:0"}, {})
    fresh = fresh._replace(daemon=fresh.daemon._replace(roles={"viewer": ("root",)}))
    assert with_lasting(running, fresh) == fresh
