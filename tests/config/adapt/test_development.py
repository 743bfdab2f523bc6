"""What `reload` makes of a configuration: one worker, no limits of production; and nothing without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from srvd.config.adapt import development
from srvd.config.load import load

TEXT = '[pools.web]\napp = "a:b"\nworkers = 3\nrequest_timeout = "5s"\nreload = {}\n'


@pytest.mark.parametrize(("value", "read"), [("true", "on"), ("false", "off"), ('"safe"', "safe"), ('"on"', "on")])
def test_reload_is_a_switch_with_a_third_way(tmp_path: Path, value: str, read: str) -> None:
    path = tmp_path / "srvd.toml"
    path.write_text(TEXT.format(value))
    config = load(str(path), {}, {})
    assert config.pools["web"].reload == read
    adapted = development.adapted(config)
    assert (adapted == config) is (read == "off")
    pool = adapted.pools["web"]
    assert (pool.workers, pool.request_timeout) == ((3, 5.0) if read == "off" else (1, 0.0))


def test_what_was_set_lasts_where_it_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "srvd.toml"
    path.write_text(TEXT.format("true") + 'drain_timeout = "9s"\n[daemon]\nlog_level = "info"\n')
    adapted = development.adapted(load(str(path), {}, {}))
    assert (adapted.pools["web"].drain_timeout, adapted.pools["web"].access_log) == (9.0, "-")
    assert adapted.daemon.log_level == "info"
    assert adapted.origins["pools.web.workers"] == "reload"
    assert len(adapted.warnings) == 1
    assert "3 workers are not started" in adapted.warnings[0]
    assert development.adapted(load(str(path), {}, {}), again=True).warnings == ()


def test_a_daemon_that_began_without_it_goes_on_without(tmp_path: Path) -> None:
    path = tmp_path / "srvd.toml"
    path.write_text(TEXT.format("true"))
    config = development.switched_off(load(str(path), {}, {}))
    assert (config.pools["web"].reload, config.pools["web"].workers) == ("off", 3)
    assert "begins at a start" in config.warnings[0]
