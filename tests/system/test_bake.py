"""The bake of a running srvd: answers of a new generation that are worse than the former one's bring that one back."""

from __future__ import annotations

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, toml
from tests.support.django_project import shop
from tests.support.users import own_name
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

FLASK = """
from flask import Flask, request
app = Flask(__name__)
@app.route("/")
def hello():
    {break_}
    return f"{release} {{request.environ['srvd.worker']}} ok\\n"
"""

VIEWS = """
from django.http import HttpResponse
def hello(request):
    {break_}
    return HttpResponse(f"{release} {{request.environ['srvd.worker']}} ok\\n")
"""


def release(srvd: Srvd, kind: str, name: str, *, fails: bool) -> None:
    """Puts it on disk."""
    how = {"release": name, "break_": "raise RuntimeError('no price')" if fails else "pass"}
    if kind == "flask":
        srvd.deploy(FLASK.format(**how))
    else:
        shop(srvd.folder, 'ALLOWED_HOSTS = ["*"]', views=VIEWS.format(**how))


def start(starter: Starter, kind: str, pool: str) -> Srvd:
    text = toml(f"workers = 2\n{pool}")
    srvd = starter.new(config=text if kind == "flask" else text.replace("app:app", "shop.wsgi:application"))
    release(srvd, kind, "one", fails=False)
    return srvd.start()


@pytest.mark.parametrize("kind", ["flask", "django"])
def test_a_release_that_fails_each_request_is_taken_back_under_load(starter: Starter, kind: str) -> None:
    srvd = start(starter, kind, 'bake = "60s"')
    with srvd.under_load(4) as load:
        load.more()
        release(srvd, kind, "two", fails=True)
        reload = srvd.ctl("reload", "--bake", timeout=90)
        assert reload.returncode == 1
        assert "answers were 5xx while it baked, of the former one's 0 of " in reload.stderr
        wait_for(lambda: srvd.call("history")["operations"][0]["state"] == "done", within=60)
    assert srvd.get().startswith("one web/1#")
    reloaded = srvd.call("history")["operations"]
    assert [(op["kind"], op["state"], op["actor"]["name"]) for op in reloaded[:2]] == [
        ("rollback", "done", "srvd"),
        ("reload", "rolled_back", own_name("uid {uid}")),
    ]
    assert "web@2 was taken back: " in srvd.ctl("status").stdout
    assert "web@2 is taken back: " in srvd.ctl("events").stdout
    release(srvd, kind, "three", fails=False)
    assert srvd.ctl("reload").returncode == 0
    assert "taken back" not in srvd.ctl("status").stdout


def test_a_reload_that_was_answered_is_taken_back_all_the_same(starter: Starter) -> None:
    srvd = start(starter, "flask", 'bake = "60s"')
    with srvd.under_load(4) as load:
        load.more()
        release(srvd, "flask", "two", fails=True)
        assert srvd.ctl("reload").returncode == 0
        srvd.wait_logged("web@2 is taken back: ", within=60)
        wait_for(lambda: srvd.call("history")["operations"][0]["state"] == "done", within=60)
    assert srvd.get().startswith("one web/1#")


def test_it_can_be_switched_off(starter: Starter) -> None:
    srvd = start(starter, "flask", 'bake = "3s"\nbake_errors = 0')
    with srvd.under_load(4) as load:
        load.more()
        release(srvd, "flask", "two", fails=True)
        assert srvd.ctl("reload", "--bake", timeout=90).returncode == 0
    assert srvd.pool()["generation"] == 2
