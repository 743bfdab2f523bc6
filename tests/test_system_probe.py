"""The health probe of a running srvd, on real applications: what it asks, how often, and what it says when it fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.daemon import Srvd, toml
from tests.shop import shop

pytestmark = pytest.mark.system

WARMING = """
import time
began = []
def app(environ, start_response):
    began.append(time.monotonic())
    warm = len(began) > 3
    start_response("200 OK" if warm else "503 Warming", [("Content-Type", "text/plain")])
    return [b"warm after %d\\n" % len(began)]
"""


def django(starter: Starter, pool: str = "", *settings: str, listener: str = "", timeout: str = "1s") -> Srvd:
    text = toml(f'workers = 2\nhealth = "/"\nhealth_timeout = "{timeout}"\n{pool}')
    text = text.replace("[pools.web]", f"{listener}\n[pools.web]").replace("app:app", "shop.wsgi:application")
    srvd = starter.new(config=text)
    shop(srvd.folder, *settings)
    return srvd


def failed(srvd: Srvd) -> str:
    """What a start said that failed."""
    done: subprocess.CompletedProcess[str] = srvd.run()
    assert done.returncode == 1
    return done.stderr


def test_the_host_that_django_refuses_is_named_with_its_setting(starter: Starter) -> None:
    text = failed(django(starter))
    assert """GET /: 400 Bad Request; Django's ALLOWED_HOSTS refuses the Host "localhost": set health_host""" in text
    srvd = django(starter, 'health_host = "shop.example"').start()
    assert srvd.status()["pools"][0]["state"] == "ready"


def test_a_redirect_to_https_is_not_healthy_and_does_not_come_where_a_proxy_is_trusted(starter: Starter) -> None:
    secure = "SECURE_SSL_REDIRECT = True"
    text = failed(django(starter, 'health_host = "shop.example"', secure))
    assert "GET /: 301 Moved Permanently to https://shop.example/; that is not healthy unless health_status" in text
    django(starter, 'health_host = "shop.example"', secure, listener='trusted_proxies = ["127.0.0.1"]').start()
    django(starter, 'health_host = "shop.example"\nhealth_status = ["200-299", "301"]', secure).start()


def test_an_application_that_warms_up_is_asked_again(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\nhealth = "/"\nhealth_timeout = "20s"'), code=WARMING)
    assert srvd.get() == "warm after 5\n"
    assert srvd.call("reload")["operation"]["state"] == "done"


def test_code_that_cannot_be_imported_does_not_wait_for_the_time_to_be_over(starter: Starter) -> None:
    srvd = django(starter, 'health_host = "shop.example"', timeout="600s").start()
    views = Path(srvd.folder / "shop" / "views.py")
    views.write_text(views.read_text() + "def broken(:\n")
    reload = srvd.ctl("reload")  # within a minute
    assert reload.returncode == 1
    assert "SyntaxError" in reload.stderr
    assert srvd.operation(srvd.call("history")["operations"][0]["id"])["state"] == "failed"


def test_what_the_application_wrote_meanwhile_is_shown_and_no_hint_that_cannot_be_followed(starter: Starter) -> None:
    code = "import sys\ndef app(e, s):\n    print('no database', file=sys.stderr)\n    s('500 Oh', [])\n    return []\n"
    srvd = starter.new(config=toml('workers = 1\nhealth = "/"\nhealth_timeout = "500ms"'), code=code)
    text = failed(srvd)
    assert "the health probe failed: GET /: 500 Oh (asked 3 times in 0.5 s)\n    no database\n" in text
    assert "srvctl" not in text
