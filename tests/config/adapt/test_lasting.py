"""Claims about what a reload can change of the daemon's own settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from srvd.config.adapt.lasting import with_lasting
from srvd.config.load import load
from srvd.errors import ConfigInvalid


def test_a_setting_of_the_daemon_stays_and_is_named_with_its_place() -> None:
    running = load(None, {"--name": "shop"}, {})
    fresh = load(None, {"--name": "shop", "--log-level": "debug"}, {"SRVD_SOCKET": "/run/x.sock"})
    lasting = with_lasting(running, fresh)
    assert lasting.daemon == running.daemon
    assert lasting.origins["daemon.log_level"] == 'flag --log-level (it says "debug", and waits for a start)'
    assert [warning.split(":")[0] for warning in lasting.warnings] == ["environment SRVD_SOCKET", "flag --log-level"]
    assert '"info" stays in force' in lasting.warnings[1]


def test_roles_and_all_of_pools_and_listeners_are_taken_over() -> None:
    running = load(None, {}, {})
    fresh = load(None, {"--workers": "7", "--bind": "127.0.0.1:0"}, {})
    fresh = fresh._replace(daemon=fresh.daemon._replace(roles={"viewer": ("root",)}))
    assert with_lasting(running, fresh) == fresh


def test_a_file_that_was_emptied_is_refused_even_if_the_application_is_named_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "srvd.toml"
    path.write_text("[listeners.web]\nbind = ['127.0.0.1:0']\n")
    running = load(str(path), {"APP": "shop:app"}, {})
    path.write_text("")
    emptied = load(str(path), {"APP": "shop:app"}, {})
    with pytest.raises(ConfigInvalid, match=r"srvd\.toml: it is empty"):
        with_lasting(running, emptied)
    assert with_lasting(emptied, emptied) == emptied
