"""Claims about `srvd start`'s command line: the quick reader and the full one agree, and the quick one is quick."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srvd.cli import app
from srvd.cli.fast import read_plain
from srvd.cli.flags import SHORT, Asked, completed, flags
from tests.conftest import Starter

PLAIN: list[tuple[str, Asked]] = [
    ("start", Asked(None, {}, False)),
    ("start shop:app", Asked(None, {"APP": "shop:app"}, False)),
    ("start --workers 4 shop:app --daemonize", Asked(None, {"APP": "shop:app", "--workers": "4"}, True)),
    ("start --bind :1 --bind=unix:/a=b", Asked(None, {"--bind": (":1", "unix:/a=b")}, False)),
    ("start -c shop.toml", Asked("shop.toml", {}, False)),
    ("start --config=shop.toml --name n", Asked("shop.toml", {"--name": "n"}, False)),
    (
        "start -w 4 -b :1 -b :2 -n n a:b",
        Asked(None, {"APP": "a:b", "--workers": "4", "--bind": (":1", ":2"), "--name": "n"}, False),
    ),
    ("start --workers 4 --workers 5", Asked(None, {"--workers": "5"}, False)),
]

WORDS = [*flags(), *SHORT, "-w3", "-w=3", "-c", "--config", "--daemonize", "--help", "-h", "--", "-", "-x", "a:b", "7",
         ":1", "--workers=3", "--bind=:2", "--daemonize=1", "-cfile", "-c=f", "--name=", "--work",
         "--config=f"]  # fmt: skip


def read_fully(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Asked | None:
    """What the full command line would start; `None` when it refuses, or shows its help."""
    asked: list[Asked] = []

    def remember(one: Asked) -> int:
        asked.append(one)
        return 0

    monkeypatch.setattr(app, "start_daemon", remember)
    try:
        app.cli.main(arguments, prog_name="srvd", standalone_mode=False)
    except (click.ClickException, SystemExit):
        return asked[0] if asked else None
    return None


@pytest.mark.parametrize(("line", "asked"), PLAIN, ids=[line for line, _ in PLAIN])
def test_a_plain_start_is_read_without_click(line: str, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_plain(line.split()) == asked
    assert read_fully(line.split(), monkeypatch) == asked


@pytest.mark.parametrize(
    "line",
    [
        "", "--help", "check", "config x:y", "start --help", "start a:b c:d", "start --workers", "start --wrkers 3",
        "start -- a:b", "start --workers -3", "start -cfile", "start --daemonize=yes", "start APP APP",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_full_command_line(line: str) -> None:
    assert read_plain(line.split()) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@given(words=st.lists(st.sampled_from(WORDS), max_size=6))
def test_both_readers_of_the_command_line_agree(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = read_plain(["start", *words])
    assert quick is None or quick == read_fully(["start", *words], monkeypatch)


OF_GUNICORN = [
    ("start -p a.pid -u me -g us a:b", {"--pidfile": "a.pid", "--user": "me", "--group": "us"}),
    ("start --pid a.pid --access-logfile - --error-logfile=- a:b",
     {"--pidfile": "a.pid", "--access-log": "-", "--log-file": "-"}),
    ("start a:b --certfile c --keyfile k --graceful-timeout 30 --keep-alive 5",
     {"--certificate": "c", "--key": "k", "--drain-timeout": "30", "--keepalive-timeout": "5"}),
    ("start a:b --max-requests 9 --max-requests-jitter 3 --chdir /x --backlog 7",
     {"--max-requests": "9", "--max-requests-jitter": "3", "--chdir": "/x", "--backlog": "7"}),
    ("start -k uvicorn.workers.UvicornWorker a:b", {}),
    ("start -w4 -k gthread --threads 8 --worker-tmp-dir /dev/shm --capture-output --no-sendfile -R a:b",
     {"--workers": "4", "--threads": "8"}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "given"), OF_GUNICORN, ids=[line for line, _ in OF_GUNICORN])
def test_flags_of_gunicorn_that_mean_the_same_are_flags_here(
    line: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = read_fully(line.split(), monkeypatch)
    assert asked == Asked(None, {"APP": "a:b", **given}, False)
    assert read_plain(line.split()) in (None, asked)


def test_a_flag_that_is_passed_over_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_fully(["start", "-D", "--worker-tmp-dir", "/dev/shm", "a:b"], monkeypatch) == Asked(
        None, {"APP": "a:b"}, True
    )
    assert capsys.readouterr().err == "warning: --worker-tmp-dir has no effect: srvd has no heartbeat file\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("eventlet", "there are no workers of the class"),
        ("shop.workers.Own", "there are no workers of the class"),
        ("gevent", 'engine = "gevent" in srvd.toml'),
    ],
)
def test_a_class_of_workers_that_srvd_does_not_have_is_refused(name: str, told: str) -> None:
    with pytest.raises(click.UsageError, match=told):
        app.cli.main(["start", "-k", name, "a:b"], prog_name="srvd", standalone_mode=False)


def test_every_flag_reaches_its_setting_in_the_full_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word for flag in flags() if flag != "APP" for word in (flag, "x")]
    asked = read_fully(["start", "a:b", *words], monkeypatch)
    expected: dict[str, Any] = dict.fromkeys(flags(), "x") | {"APP": "a:b", "--bind": ("x",)}
    assert asked == Asked(None, expected, False)


def test_a_plain_start_imports_neither_click_nor_what_it_does_not_need() -> None:
    code = (
        "import sys; sys.argv = ['srvd', 'start', 'a:b'];"
        "import srvd.daemon.entry.start as daemon; daemon.run = lambda *a, **k: print(*sorted(sys.modules)) or 0;"
        "from srvd.cli.fast import main; main()"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(done.stdout.split())
    unwanted = {
        "asyncio", "click", "dataclasses", "email", "http.client", "inspect", "json", "logging", "psutil", "shutil",
        "subprocess", "tempfile", "tomllib", "urllib",
    }  # fmt: skip
    assert loaded & unwanted == set()


def test_a_zygote_imports_little_before_the_application() -> None:
    code = "import sys; import srvd._zygote_entry; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    unwanted = {"asyncio", "ctypes", "dataclasses", "email", "inspect", "json", "logging", "subprocess", "tempfile"}
    assert set(done.stdout.split()) & unwanted == set()


def test_a_start_line_of_gunicorn_serves(starter: Starter) -> None:
    line = (
        "-w 1 -k gthread --threads 2 --worker-tmp-dir /dev/shm --graceful-timeout 20 --error-logfile - --max-requests 9"
    )
    srvd = starter(*line.split())
    assert srvd.get("/").startswith("one ")
    found = {one["key"]: one["value"] for one in srvd.ctl_json("config")["settings"]}
    wanted = {"workers": 1, "threads": 2, "drain_timeout": 20.0, "max_requests": 9}
    assert {name: found[f"pools.web.{name}"] for name in wanted} == wanted
    assert found["daemon.log_file"] == ""


def test_a_switch_is_on_without_a_value_and_only_in_front_of_two_hyphens() -> None:
    assert completed(["start", "--reload", "a:b"]) == ["start", "--reload=on", "a:b"]
    assert completed(["start", "--reload=safe"]) == ["start", "--reload=safe"]
    assert completed(["import", "--", "gunicorn", "--reload", "a:b"]) == ["import", "--", "gunicorn", "--reload", "a:b"]
