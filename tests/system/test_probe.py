"""The health probe of a running srvd, on real applications: what it asks, how often, and what it says when it fails."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, toml
from tests.support.django_project import shop

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


FAILS_AND_HANGS = """
import time, traceback
began = []
def app(environ, start_response):
    began.append(1)
    if len(began) > 1:
        time.sleep(1000)
    try:
        raise ConnectionError("no database")
    except ConnectionError:
        traceback.print_exc()
    start_response("500 Internal Server Error", [("Content-Length", "0")])
    return []
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


def test_what_the_application_has_answered_is_told_also_if_it_hangs_afterwards(starter: Starter) -> None:
    srvd = starter.new(config=toml('workers = 1\nhealth = "/"\nhealth_timeout = "2s"'), code=FAILS_AND_HANGS)
    text = failed(srvd)
    asked = "(asked 2 times in 2 s, the last time without an answer)"
    assert f"the health probe failed: GET /: 500 Internal Server Error {asked}" in text
    assert "ConnectionError: no database" in text
    assert "in app" in text  # where it hangs


def test_code_that_cannot_be_imported_does_not_wait_for_the_time_to_be_over(starter: Starter) -> None:
    srvd = django(starter, 'health_host = "shop.example"', timeout="600s").start()
    views = Path(srvd.folder / "shop" / "views.py")
    views.write_text(views.read_text() + "def broken(:\n")
    reload = srvd.ctl("reload")  # within a minute
    assert reload.returncode == 1
    assert "SyntaxError" in reload.stderr
    assert "def broken(:" in reload.stderr
    assert "site-packages" not in reload.stderr
    whole = srvd.ctl("reload", "-v")
    assert "site-packages/django" in whole.stderr
    assert srvd.operation(srvd.call("history")["operations"][0]["id"])["state"] == "failed"


def test_what_the_application_wrote_meanwhile_is_shown_and_no_hint_that_cannot_be_followed(starter: Starter) -> None:
    code = "import sys\ndef app(e, s):\n    print('no database', file=sys.stderr)\n    s('500 Oh', [])\n    return []\n"
    srvd = starter.new(config=toml('workers = 1\nhealth = "/"\nhealth_timeout = "500ms"'), code=code)
    text = failed(srvd)
    told = r"the health probe failed: GET /: 500 Oh \(asked \d times in 0\.5 s\)\n    no database\n"
    assert re.search(told, text), text
    assert "srvctl" not in text


def test_an_answer_says_what_was_not_probed(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1\nbake = 0.5"))
    assert re.search(r"ready: web@1 serves with 1 worker.*; not probed: pools.web.health is not set", srvd.logged())
    said = srvd.ctl("reload", "--bake")
    assert said.returncode == 0
    assert re.search(r"web@2 serves with 1 worker.*; not probed: pools.web.health is not set", said.stdout)
    assert "proved" not in srvd.ctl("events").stdout
    srvd.configure((srvd.folder / "srvd.toml").read_text() + 'health = "/"\n')
    assert "not probed" not in srvd.ctl("reload").stdout


def test_a_rollback_says_what_serves_instead_of_what_and_a_second_one_is_refused(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"))
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    back = srvd.ctl("rollback")
    assert re.search(
        r"web@1 \(loaded \d{4}-\d\d-\d\d \d\d:\d\d from .+\) serves instead of web@2 with 1 worker", back.stdout
    )
    assert srvd.get().startswith("one ")
    again = srvd.ctl("rollback")
    assert again.returncode == 1
    assert "hint: if it is meant all the same: srvctl rollback web --to web@2" in again.stderr
    assert srvd.get().startswith("one ")
    assert srvd.ctl("rollback", "web", "--to", "2").returncode == 0
    assert srvd.get().startswith("two ")
    assert "web@7 is not kept" in srvd.ctl("rollback", "--to", "web@7").stderr


def test_a_reload_says_that_a_size_was_ordered_otherwise(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"))
    assert srvd.ctl("scale", "2").returncode == 0
    said = srvd.ctl("reload").stdout
    assert "web@2 serves with 2 workers (the file says 1; `srvctl scale --reset web`)" in said


def test_a_pool_of_nobody_says_that_clients_wait(starter: Starter) -> None:
    srvd = starter.new(config=toml(""), env={"WEB_CONCURRENCY": "0"}).start()
    srvd.wait_logged("web serves nobody now; clients wait")
    srvd.wait_logged("WEB_CONCURRENCY: pool web has 0 workers: its clients wait until it has some")
    assert "web serves nobody now; clients wait" in srvd.ctl("status").stdout
    assert "web serves with 1 worker" in srvd.ctl("scale", "1").stdout
    assert "nobody" not in srvd.ctl("status").stdout
    assert "web serves nobody now; clients wait" in srvd.ctl("scale", "0").stdout


def test_who_is_not_preloaded_says_that_it_loads_what_is_on_disk(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\npreload = "off"'))
    note = "web is not preloaded: its new workers have loaded what is on disk"
    assert note in srvd.ctl("scale", "2").stdout
    assert note in srvd.ctl("recycle", "web").stdout
    assert note not in srvd.ctl("scale", "1").stdout
    assert srvd.ctl("reload").returncode == 0
    assert note in srvd.ctl("rollback").stdout
