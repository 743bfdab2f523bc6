"""Claims about `srvd.config.show`: what `srvd config` prints, and what it keeps to itself."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from srvd.config.load import load
from srvd.config.show import HIDDEN, as_map, as_toml

FILE = """\
[daemon]
name = "shop"
[control]
roles = { operator = ["root"] }
[listeners.web]
bind = ["127.0.0.1:0", "unix:run/web.sock"]
[pools.web]
app = "shop.wsgi:application"
workers = 4
boot_timeout = "5m"
max_body = "512MiB"
env = { SECRET_KEY = "hunter2" }
"""


def write(folder: Path, text: str) -> str:
    path = folder / "srvd.toml"
    path.write_text(text)
    return str(path)


def settings_of(shown: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: one for one in shown["settings"]}


def test_the_values_in_force_are_shown_as_a_file_that_says_the_same(tmp_path: Path) -> None:
    config = load(write(tmp_path, FILE), {"--name": "flagged"}, {})
    text = as_toml(config)
    assert 'name = "flagged"' in text
    assert "# flag --name" in text
    assert f"# {config.path}:9" in text
    secret = f'# env = {{ SECRET_KEY = "{HIDDEN}" }}'  # whoever uses the file as it is sets no variable to asterisks
    again = load(write(tmp_path, text.replace(secret, 'env = { SECRET_KEY = "hunter2" }')), {}, {})
    assert again[:3] == config[:3]


def test_secrets_are_shown_to_nobody(tmp_path: Path) -> None:
    config = load(write(tmp_path, FILE), {}, {})
    shown = as_map(config)
    assert "hunter2" not in as_toml(config) + repr(shown)
    assert settings_of(shown)["pools.web.env"]["value"] == {"SECRET_KEY": HIDDEN}
    tomllib.loads(as_toml(config))


def test_the_map_has_plain_values_and_origins(tmp_path: Path) -> None:
    config = load(write(tmp_path, FILE), {}, {})
    shown = as_map(config)
    settings = settings_of(shown)
    origin = f"{config.path}:10"
    boot_timeout = settings["pools.web.boot_timeout"]
    assert (boot_timeout["value"], boot_timeout["unit"], boot_timeout["origin"]) == (300.0, "s", origin)
    assert "become ready" in boot_timeout["help"]
    assert settings["pools.web.max_body"]["unit"] == "bytes"
    assert settings["control.roles"]["value"] == {"operator": ["root"]}


def test_a_text_that_looks_like_a_variable_is_read_again_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "${HOME}").mkdir()
    path = tmp_path / "srvd.toml"
    path.write_text('[pools.web]\napp = "a:b"\naccess_log = "$${HOME}/access.log"\n')
    config = load(str(path), {}, {})
    path.write_text(as_toml(config))
    assert load(str(path), {}, {}).pools["web"].access_log == config.pools["web"].access_log
    assert "${HOME}" in config.pools["web"].access_log
