"""What the health probe asks for, by the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from srvd.config.health import probe_url
from srvd.config.load import load
from srvd.errors import ConfigInvalid


def url(folder: Path, listeners: str, pool: str = "") -> str:
    file = folder / "srvd.toml"
    file.write_text(f'{listeners}\n[pools.web]\napp = "app:app"\nhealth = "/healthz?deep=1"\n{pool}\n')
    return probe_url(load(str(file), {}, {}), "web")


@pytest.mark.parametrize(
    ("listeners", "pool", "expected"),
    [
        ('[listeners.web]\nbind = ["127.0.0.1:0"]', "", "http://localhost/healthz?deep=1"),
        ('[listeners.web]\nbind = [":0", "[::]:8000", "unix:a.sock"]', "", "http://localhost/healthz?deep=1"),
        ('[listeners.web]\nbind = ["0.0.0.0:0", "shop.example:80"]', "", "http://shop.example/healthz?deep=1"),
        ('[listeners.web]\nbind = [":0"]', 'health_host = "b.example:8080"', "http://b.example:8080/healthz?deep=1"),
        ('[listeners.web]\nbind = ["a.example:80"]', 'health_host = "[::1]"', "http://[::1]/healthz?deep=1"),
        ('[listeners.web]\nbind = [":0"]\ntrusted_proxies = ["unix"]', "", "https://localhost/healthz?deep=1"),
        (
            '[listeners.a]\nbind = ["a.example:1"]\n[listeners.b]\nbind = ["b.example:1"]\ntrusted_proxies = ["::1"]',
            'listeners = ["a"]',
            "http://a.example/healthz?deep=1",
        ),
    ],
)
def test_the_probe_asks_as_a_client_would(tmp_path: Path, listeners: str, pool: str, expected: str) -> None:
    assert url(tmp_path, listeners, pool) == expected


@pytest.mark.parametrize(
    ("pool", "text"),
    [
        ('health_host = "http://shop.example"', 'found "http://shop.example", expected a host'),
        ('health_host = "a b"', 'found "a b", expected a host'),
        ('health_status = ["2xx"]', 'found "2xx", expected statuses of three digits'),
        ('health_status = ["200-299", "999"]', 'found "999", expected statuses'),
        ("health_status = []", "expected a list of statuses"),
    ],
)
def test_a_probe_that_cannot_be_asked_is_refused_with_its_line(tmp_path: Path, pool: str, text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        url(tmp_path, '[listeners.web]\nbind = [":0"]', pool)
    assert text in str(caught.value)
    assert "srvd.toml:6" in str(caught.value)
