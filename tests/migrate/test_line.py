"""Claims about `srvd.migrate.line` and what a start line becomes: flags as gunicorn reads them, and what is refused."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from srvd.errors import ConfigInvalid
from srvd.migrate.convert import Result, Wanted, convert
from srvd.migrate.line import read, split
from srvd.migrate.report import exit_code

LINES: list[tuple[str, dict[str, Any]]] = [
    ("web: gunicorn shop.wsgi", {"app": "shop.wsgi", "workers": "${WEB_CONCURRENCY:-1}", "request_timeout": "30s"}),
    ("web: gunicorn shop.wsgi --log-file -", {"app": "shop.wsgi"}),
    (
        ('web: gunicorn --bind "0.0.0.0:${PORT:-8080}" --workers 2 --threads 8 --timeout 120 --graceful-timeout 30 '
        "--access-logfile - --error-logfile - main:app"),
        {"bind": ["0.0.0.0:${PORT:-8080}"], "app": "main:app", "workers": 2, "threads": 8, "request_timeout": 0,
         "drain_timeout": "30s", "access_log": "-"},
    ),
    (
        "CMD exec gunicorn --bind :$PORT --workers 1 --threads 8 --timeout 0 main:app",
        {"bind": [":${PORT}"], "request_timeout": 0, "threads": 8},
    ),
    ("gunicorn -b 0.0.0.0:5000 -w 4 -t 120 'desk:create_app()'", {"app": "desk:create_app()", "request_timeout": "2m"}),
    ("""gunicorn 'desk:create_app(config="prod.cfg")'""", {"app": 'desk:create_app(config="prod.cfg")'}),
    (
        ("gunicorn -b [::]:5000 --name desk -w4 desk.wsgi:app --max-requests 1000 --max-requests-jitter 100 "
        "--limit-request-line 0"),
        {"bind": ["[::]:5000"], "name": "desk", "workers": 4, "max_requests": 1000, "max_target": 0},
    ),
    (
        ("gunicorn -k gevent --worker-class gthread --threads 20 --worker-connections 1000 --keep-alive 2 "
        '--limit-request-field_size 0 "$APP"'),
        {"app": "${APP}", "threads": 20, "max_connections": 1000, "keepalive_timeout": "2s", "max_field": 0},
    ),
    (
        "gunicorn -k gevent --worker-connections 50 -t 9 app:app",
        {"engine": "gevent", "greenlets": 50, "request_timeout": 0},
    ),
    ("gunicorn --bind=0.0.0.0 --workers=3 core.wsgi:application", {"bind": ["0.0.0.0:8000"], "workers": 3}),
    ("gunicorn config.wsgi --bind 0.0.0.0:5000 --chdir=/app", {"app": "config.wsgi", "chdir": "/app"}),
    (
        ("gunicorn app:app --reload -D -p /run/app.pid -e DJANGO_SETTINGS_MODULE=app.prod -u www-data -m 007 "
        "-b unix:/run/app.sock"),
        {"pidfile": "/run/app.pid", "env": {"DJANGO_SETTINGS_MODULE": "app.prod"}, "user": "www-data", "umask": "0007",
         "mode": "0770"},
    ),
    ("gunicorn app:app --reload --reload-extra-file a.html", {"reload": True, "reload_extra": ["a.html"]}),
    ("gunicorn app:app --statsd-host localhost:8125 --statsd-prefix shop", {"app": "app:app"}),
    (
        'GUNICORN_CMD_ARGS="--bind 0.0.0.0:8000 --bind [::1]:8000 -w 2 --no-control-socket" gunicorn app:app -w 3',
        {"bind": ["0.0.0.0:8000", "[::1]:8000"], "workers": 3, "socket": "off"},
    ),
    ("newrelic-admin run-program gunicorn shop.wsgi --log-file -",
     {"app": "shop.wsgi", "wrap": ["newrelic-admin", "run-program"]}),
    ("ddtrace-run gunicorn -b :8000 --workers 1 --threads 8 --timeout 0 app:app",
     {"bind": [":8000"], "threads": 8, "wrap": ["ddtrace-run"]}),
    ("/srv/venv/bin/python -m gunicorn --preload --reuse-port app:app", {"preload": "on", "reuse_port": True}),
    ("gunicorn -b unix://run/a.sock -b fd://3 -b tcp://h:1 app:app", {"bind": ["unix:run/a.sock", "fd:3", "h:1"]}),
    ("gunicorn app:app --certfile c.pem --keyfile k.pem --ca-certs ca.pem --cert-reqs 2",
     {"certificate": "c.pem", "key": "k.pem", "client_ca": "ca.pem", "client_certificates": "required"}),
    ("gunicorn app:app --proxy-protocol --proxy-allow-from 10.0.0.0/8",
     {"proxy_protocol": True, "proxy_from": ["10.0.0.0/8"]}),
    ("gunicorn app:app --forwarded-allow-ips=10.1.0.0/16,10.2.0.1", {"trusted_proxies": ["10.1.0.0/16", "10.2.0.1"]}),
    ("gunicorn app:app --forwarded-allow-ips='*'", {"trusted_proxies": None}),
    ("gunicorn config.asgi -k uvicorn.workers.UvicornWorker --worker-tmp-dir /dev/shm --keep-alive 65",
     {"app": "config.asgi", "interface": "asgi", "request_timeout": 0, "keepalive_timeout": "65s"}),
    ("uvicorn shop:app --host 0.0.0.0 --port $PORT --workers 3 --proxy-headers --forwarded-allow-ips 10.0.0.1",
     {"app": "shop:app", "bind": ["0.0.0.0:${PORT}"], "workers": 3, "interface": "asgi", "access_log": "-",
      "trusted_proxies": ["10.0.0.1"]}),
    ("uvicorn --factory shop:create --uds /run/a.sock --no-access-log --limit-max-requests=9 --log-level trace",
     {"app": "shop:create()", "bind": ["unix:/run/a.sock"], "access_log": None, "max_requests": 9,
      "log_level": "debug"}),
    ("uvicorn shop:app --timeout-graceful-shutdown 9 --ws-max-size 65536 --lifespan off --root-path /api",
     {"root_path": "/api", "drain_timeout": "9s", "websocket_max_message": 65536, "lifespan": "off",
      "bind": ["127.0.0.1:8000"]}),
    ("python -m uvicorn shop:app --port 80", {"bind": ["127.0.0.1:80"]}),
    ("hypercorn -b 0.0.0.0:$PORT -w4 --access-logfile - -k uvloop shop:app",
     {"bind": ["0.0.0.0:${PORT}"], "workers": 4, "access_log": "-", "interface": "asgi"}),
    ("granian --interface asgi --host :: --port 80 --workers 2 shop:app", {"bind": ["[::]:80"], "workers": 2}),
    ("granian --interface wsgi --blocking-threads 8 shop:app", {"threads": 8, "interface": None}),
]  # fmt: skip


def converted(text: str, folder: Path) -> Result:
    found = read(split(text))
    arguments = found.environ.get("GUNICORN_CMD_ARGS", "")
    return convert(Wanted("", found, str(folder), sys.executable, arguments, name="shop"))


@pytest.mark.parametrize(("text", "expected"), LINES, ids=[text[:60] for text, _ in LINES])
def test_a_line_becomes_settings(text: str, expected: dict[str, Any], tmp_path: Path) -> None:
    result = converted(text, tmp_path)
    tables = tomllib.loads(result.files["srvd.toml"])
    flat = {**tables["daemon"], **tables.get("control", {}), **tables.get("listeners", {}).get("web", {}),
            **tables["pools"]["web"]}  # fmt: skip
    assert {name: flat.get(name) for name in expected} == expected
    assert exit_code(result.findings) in (0, 10)


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("gunicorn app:app --statsd-host h:1", 10, "lost: statsd_host: srvd sends no statsd"),
        ("gunicorn app:app --worker-tmp-dir /dev/shm", 0, "needless: worker_tmp_dir: srvd has no heartbeat file"),
        ("gunicorn app:app -D", 0, "next: daemon: start it with --daemonize"),
        ("gunicorn app:app --forwarded-allow-ips=*", 10, 'asked for: forwarded_allow_ips: "*" trusts every peer'),
        ("gunicorn app:app -e A=b -e SECRET_KEY=x", 10, "asked for: raw_env: SECRET_KEY may be secret"),
        ("bin/start-nginx gunicorn app:app", 10, "asked for: bin/start-nginx stands in front"),
        ("A=b gunicorn app:app", 10, "asked for: A is set in front of the line"),
        ("gunicorn app:app -k eventlet", 1, "refused: worker_class: eventlet: srvd runs greenlets of gevent"),
        ("gunicorn app:app -k shop.workers.Own", 1, "shop.workers.Own is a class of its own"),
        ("gunicorn app:app --paste x.ini", 1, "refused: paste: name a module"),
        ("gunicorn app:app --protocol uwsgi", 1, "refused: protocol: srvd speaks HTTP"),
        ("granian app:app --interface rsgi", 1, "refused: worker_class: rsgi is a class of its own"),
        ("uvicorn app:app --env-file .env", 10, "asked for: .env is not read"),
        ("gunicorn -w 3", 10, "asked for: the application"),
    ],
)
def test_what_does_not_move_is_told_with_its_category(text: str, code: int, told: str, tmp_path: Path) -> None:
    result = converted(text, tmp_path)
    assert exit_code(result.findings) == code
    assert [line for line in map(str, result.findings) if told in line]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gunicorn -w 4 --keepalive 10 api:app", "gunicorn has no such flag"),
        ("gunicorn --factory api:app", "gunicorn has no such flag"),
        ("uvicorn api:app --xyzzy", "--xyzzy: it is not known of uvicorn"),
        ("gunicorn api:app --workers", "--workers: it has no value"),
        ("gunicorn api:app --limit-request 3", "gunicorn has no such flag"),
        ("gunicorn api:app -b :$(cat port)", "it executes a command"),
        ("gunicorn 'api:app", "No closing quotation"),
        ("python manage.py runserver", "it starts no gunicorn"),
    ],
)
def test_a_line_that_gunicorn_would_refuse_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="nothing was written") as caught:
        converted(text, tmp_path)
    assert message in caught.value.message


def test_secrets_are_copied_only_where_asked_for(tmp_path: Path) -> None:
    wanted = Wanted("", read(split("gunicorn app:app -e A=b -e SECRET_KEY=hunter2")), str(tmp_path), sys.executable)
    assert "hunter2" not in str(convert(wanted))
    assert 'SECRET_KEY = "hunter2"' in convert(wanted._replace(secrets=True)).files["srvd.toml"]
