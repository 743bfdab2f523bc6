"""Claims about configurations and start lines of uWSGI: what they become, and what is told of the rest."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from srvd.config.load import load
from srvd.errors import ConfigInvalid
from srvd.migrate import containers, line
from srvd.migrate.convert import Result, Wanted, convert
from srvd.migrate.report import exit_code
from tests.conftest import Starter
from tests.support.daemon import free_port

FILES: list[tuple[str, dict[str, Any], int]] = [
    ("http = :8000\nwsgi-file = shop.py\n", {"bind": [":8000"], "app": "shop", "workers": 1, "request_timeout": 0}, 0),
    ("http-socket = 0.0.0.0:80\nmodule = shop.wsgi:application\nprocesses = 4\nthreads = 2\nmaster = true\n",
     {"bind": ["0.0.0.0:80"], "app": "shop.wsgi:application", "workers": 4, "threads": 2}, 0),
    ("socket = 127.0.0.1:3031\nwsgi = shop\ncallable = app\n",
     {"bind": ["127.0.0.1:3031"], "app": "shop:app", "trusted_proxies": ["127.0.0.1"]}, 10),
    ("socket = /run/shop.sock\nchmod-socket = 660\nchown-socket = www-data:nginx\nmodule = a\n",
     {"bind": ["unix:/run/shop.sock"], "mode": "0660", "owner": "www-data", "group": "nginx",
      "trusted_proxies": ["unix"]}, 10),
    ("protocol = http\nsocket = :5000\nmodule = a\nworkers = 5\ndie-on-term = true\nvacuum = true\n",
     {"bind": [":5000"], "workers": 5, "trusted_proxies": None}, 0),
    (("project = shop\nbase = /srv/%(project)\nchdir = %(base)\nhome = %(base)/env\nmodule = %(project).wsgi\n"
     "http = :80\nharakiri = 20\n"),
     {"chdir": "/srv/shop", "python": "/srv/shop/env/bin/python", "app": "shop.wsgi", "request_timeout": "20s"}, 0),
    ("http = :80\nmodule = a\nprocesses = %k\n", {"workers": "cpus"}, 0),
    ("http = :80\nmodule = a\nprocesses = %(%k * 2 + 1)\nthreads = 8\n", {"workers": "cpus * 2 + 1"}, 0),
    ("http = :$(PORT)\nmodule = a\nprocesses = $(WORKERS)\n", {"bind": [":${PORT}"], "workers": "${WORKERS}"}, 0),
    ("http = :80\nchdir = /srv/x\nwsgi-file = /srv/x/shop/wsgi.py\n", {"app": "shop.wsgi", "pythonpath": None}, 0),
    ("http = :80\nwsgi-file = /opt/y/run.py\ncallable = app\n", {"app": "run:app", "pythonpath": ["/opt/y"]}, 0),
    (("http = :80\nmodule = a\nmax-requests = 9\nmax-requests-delta = 3\nmax-worker-lifetime = 60\nreload-on-rss = 64\n"
     "worker-reload-mercy = 90\nlimit-post = 4096\nlisten = 64\n"),
     {"max_requests": 9, "max_requests_jitter": 3, "max_age": "60s", "max_rss": "64MiB", "drain_timeout": "90s",
      "max_body": 4096, "backlog": 64}, 0),
    ("http = :80\nmodule = a\nenv = A=1\nenv = DJANGO_SETTINGS_MODULE=a.b\npp = x\npythonpath = y\nlazy-apps = true\n",
     {"env": {"A": "1", "DJANGO_SETTINGS_MODULE": "a.b"}, "pythonpath": ["x", "y"], "preload": "off"}, 0),
    ("https = :443,c.pem,k.pem\nmodule = a\ndisable-logging = true\n",
     {"bind": [":443"], "certificate": ["c.pem"], "key": ["k.pem"], "access_log": None}, 0),
    ("http = :80\nmount = /shop=shop:app\nmanage-script-name = true\n", {"app": "shop:app"}, 10),
    ("http = :80\nmodule = a\nlogto = /var/log/%n.log\nuid = www-data\ngid = www-data\npidfile = /run/%n.pid\n",
     {"log_file": "/var/log/uwsgi.log", "user": "www-data", "group": "www-data", "pidfile": "/run/uwsgi.pid"}, 0),
    ("http = :80\nmodule = a\npy-autoreload = 1\nmaster = false\ngevent = false\n", {"reload": "on"}, 0),
]  # fmt: skip


def of(text: str, folder: Path) -> Result:
    (folder / "uwsgi.ini").write_text(f"; a comment\n[other]\nhttp = :1\n[uwsgi]\n# one more\n{text}")
    found = line.read(containers.read("uwsgi.ini", (folder / "uwsgi.ini").read_text()).words)
    return convert(Wanted("", found, str(folder), sys.executable, name="shop"))


def flat_of(result: Result) -> dict[str, Any]:
    tables = tomllib.loads(result.files["srvd.toml"])
    return {**tables["daemon"], **tables["listeners"]["web"], **tables["pools"]["web"]}


@pytest.mark.parametrize(("text", "expected", "code"), FILES, ids=[text.splitlines()[-1] for text, _, _ in FILES])
def test_a_file_becomes_settings(text: str, expected: dict[str, Any], code: int, tmp_path: Path) -> None:
    result = of(text, tmp_path)
    flat = flat_of(result)
    assert {name: flat.get(name) for name in expected} == expected
    assert exit_code(result.findings) == code, result.findings
    (tmp_path / "srvd.toml").write_text(result.files["srvd.toml"])
    try:
        load(str(tmp_path / "srvd.toml"), {}, {"PORT": "80", "WORKERS": "2"})
    except ConfigInvalid as exc:  # but for what this machine does not have
        problems = exc.message.splitlines()[1:]
        assert [one for one in problems if not any(w in one for w in ("machine", "exist", "No such", "root"))] == []


@pytest.mark.parametrize(
    ("text", "told", "code"),
    [
        ("static-map = /static=x\n", "lost: uwsgi.ini:8: static-map: srvd serves no files", 10),
        ("cron = 0 0 -1 -1 -1 x\n", "lost: uwsgi.ini:8: cron: srvd runs workers alone", 10),
        ("route = ^/x redirect:/\n", "lost: uwsgi.ini:8: route: srvd changes no request", 10),
        ("touch-reload = /tmp/x\n", "changed: uwsgi.ini:8: touch-reload: `srvctl reload` in place", 10),
        ("cheaper = 2\n", "changed: uwsgi.ini:8: cheaper: workers is the number that always runs", 10),
        ("gevent = 100\n", "refused: uwsgi.ini:8: gevent: gevent runs greenlets", 1),
        ("emperor = /etc/x\n", "refused: uwsgi.ini:8: emperor: srvd runs applications of Python", 1),
        ("socket = @abstract\n", "refused: uwsgi.ini:8: socket: @abstract", 1),
        ("socket = 10.0.0.1:30\n", "asked for: uwsgi.ini:8: socket: the network of the proxy", 10),
        ("env = SECRET_KEY=hunter2\n", "asked for: uwsgi.ini:8: env: SECRET_KEY may be secret", 10),
        ("if-env = X\nthreads = 9\nendif =\n", "asked for: uwsgi.ini:8: if-env = X: what depends on it", 10),
        ("processes = %(nothing)\n", "asked for: uwsgi.ini:8: processes: %(nothing) is no number here", 10),
        ("mystery = 4\n", "asked for: uwsgi.ini:8: mystery: 4: it is not known here", 10),
        ("daemonize = /var/log/x.log\n", "next: uwsgi.ini:8: daemonize: start it with --daemonize", 0),
        ("log-format = x\n", "lost: uwsgi.ini:8: log-format: access_log_format", 10),
        ("limit-post = many\n", "changed: uwsgi.ini:8: limit-post: many is no number", 10),
    ],
)
def test_what_does_not_move_is_told_with_its_line(text: str, told: str, code: int, tmp_path: Path) -> None:
    result = of(f"http = :80\nmodule = a\n{text}", tmp_path)
    assert [one for one in map(str, result.findings) if one.startswith(told)], result.findings
    assert exit_code(result.findings) == code
    assert "threads = 9" not in str(result.files)
    assert "hunter2" not in str(result)


def test_a_file_without_an_application_is_asked_for_it(tmp_path: Path) -> None:
    assert any("the application: module" in one.text for one in of("http = :80\n", tmp_path).findings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uwsgi --http 0.0.0.0:8000 --module=wsgi:application --env A=b --master --processes=5 --harakiri=20 --vacuum",
         {"bind": ["0.0.0.0:8000"], "app": "wsgi:application", "env": {"A": "b"}, "workers": 5}),
        ("/venv/bin/uwsgi -s /tmp/x.sock -w a:b -p 4 -M -H /venv --enable-threads --uid 1000 --anything --http :1",
         {"bind": [":1", "unix:/tmp/x.sock"], "workers": 4, "python": "/venv/bin/python", "user": "1000"}),
        ("exec uwsgi --ini more.ini --processes 3 && echo over", {"workers": 3, "app": "more:app", "threads": 6}),
        ("newrelic-admin run-program uwsgi more.ini", {"wrap": ["newrelic-admin", "run-program"], "threads": 6}),
    ],
)  # fmt: skip
def test_a_start_line_becomes_settings(text: str, expected: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "more.ini").write_text("[uwsgi]\nini = threads.ini\nini = more.ini\nmodule = more:app\nhttp = :80\n")
    (tmp_path / "threads.ini").write_text("[uwsgi]\nthreads = 6\n")
    flat = flat_of(convert(Wanted("", line.read(line.split(text)), str(tmp_path), sys.executable)))
    assert {name: flat.get(name) for name in expected} == expected


def test_the_file_of_a_container_is_looked_for_below_its_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "uwsgi.ini").write_text("[uwsgi]\nmodule = a:b\nhttp = :80\n")
    found = line.read(["uwsgi", "--ini", "/app/etc/uwsgi.ini"])._replace(values={"chdir": "/app"})
    flat = flat_of(convert(Wanted("", found, str(tmp_path), sys.executable)))
    assert (flat["app"], flat["chdir"]) == ("a:b", "/app")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uwsgi --processes", "--processes: it has no value"),
        ("uwsgi -Q x", "-Q: it is not known of uwsgi"),
        ("uwsgi --ini absent.ini", "read absent.ini: No such file"),
        ("uwsgi --ini broken.ini", "it has no section [uwsgi]"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.ini").write_text("[other]\n")
    with pytest.raises(ConfigInvalid, match="nothing was written") as caught:
        convert(Wanted("", line.read(line.split(text)), str(tmp_path), sys.executable))
    assert message in caught.value.message


def test_an_imported_file_of_uwsgi_serves(starter: Starter) -> None:
    daemon = starter.new(config="# replaced")
    folder = daemon.folder
    port = free_port()
    text = (
        f"http-socket = 127.0.0.1:{port}\nwsgi-file = app.py\ncallable = app\nprocesses = 2\nthreads = 2\nchdir = %d\n"
    )
    result = of(text.replace("%d", f"{os.path.realpath(folder)}/"), folder)
    written = result.files["srvd.toml"].replace('"shop"', f'"{Path(folder).name.lower()}"')
    (folder / "srvd.toml").write_text(written)
    daemon.good()
    daemon.start()
    assert daemon.get("/").startswith("one ")
    assert daemon.address()[1] == port
