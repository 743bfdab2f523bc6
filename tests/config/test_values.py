"""Claims about `srvd.config.values`: what each kind of value takes, refuses and suggests."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srvd.config import values
from srvd.config.settings import TABLES, declared
from srvd.config.values import Unfit, nearest, read, show

GOOD: list[tuple[str, object, object]] = [
    ("duration", "30s", 30.0),
    ("duration", "5m", 300.0),
    ("duration", "500ms", 0.5),
    ("duration", "1.5", 1.5),
    ("duration", "2 h", 7200.0),
    ("duration", "7d", 604_800.0),
    ("duration", 30, 30.0),
    ("duration", 0.25, 0.25),
    ("duration or 0", 0, 0.0),
    ("duration or 0", "0", 0.0),
    ("size", "512MiB", 512 << 20),
    ("size", "1GB", 10**9),
    ("size", "1.5 KiB", 1536),
    ("size", "64kb", 64_000),
    ("size", "17", 17),
    ("size", 4096, 4096),
    ("size or 0", 0, 0),
    ("count:0..10", 0, 0),
    ("count:0..10", 10, 10),
    ("choice:auto|on|off", "on", "on"),
    ("mode", "0660", "0660"),
    ("mode", "660", "0660"),
    ("mask", "", ""),
    ("mask", "027", "0027"),
    ("name", "web-2_b", "web-2_b"),
    ("names", ["web", "admin"], ("web", "admin")),
    ("names", [], ()),
    ("app", "shop.wsgi:application", "shop.wsgi:application"),
    ("app", "shop:create_app()", "shop:create_app()"),
    ("app", "shop.wsgi", "shop.wsgi"),
    ("app", "shop", "shop"),
    ("app", "shop:make('prod', debug=False, n=[1])", "shop:make('prod', debug=False, n=[1])"),
    ("app", "größe:app.wsgi", "größe:app.wsgi"),
    ("addresses", [":8000"], (":8000",)),
    ("url path", "/healthz?deep=1", "/healthz?deep=1"),
    ("url path", "", ""),
    ("path", "/run/x", "/run/x"),
    ("log path", "-", ""),
    ("log path", "a.log", "a.log"),
    ("variables", {"A_1": ""}, {"A_1": ""}),
    ("roles", {"operator": ["deploy", "%wheel"]}, {"operator": ("deploy", "%wheel")}),
    ("limits", {}, {}),
    ("limits", {"nofile": 4096, "core": 0}, {"nofile": (4096, 4096), "core": (0, 0)}),
    ("limits", {"as": "2GiB", "stack": ["8MiB", "unlimited"]}, {"as": (2 << 30,) * 2, "stack": (8 << 20, -1)}),
    ("limits", {"memlock": "unlimited", "nproc": [256, 512]}, {"memlock": (-1, -1), "nproc": (256, 512)}),
    ("count:-20..19", -20, -20),
    ("choice:debug|info", "INFO", "info"),
    ("formula:0..10", 4, 4),
    ("formula:0..10", "2 * cpus + 1", "2 * cpus + 1"),
    ("formula:0..10", "Auto", "Auto"),
]

BAD: list[tuple[str, object, str]] = [
    ("duration", "30 sec", '"30s"'),
    ("duration", "5 Minutes", '"5m"'),
    ("duration", "soon", ""),
    ("duration", "", ""),
    ("duration", 0, ""),
    ("duration", "0ms", ""),
    ("duration", -1, ""),
    ("duration", "8d", ""),
    ("duration", float("nan"), ""),
    ("duration", float("inf"), ""),
    ("duration", "1_0", ""),
    ("duration", "٣s", ""),
    ("duration", True, ""),
    ("duration", [1], ""),
    ("size", "512M", '"512MiB"'),
    ("size", "1.5g", '"1.5GiB"'),
    ("size", "12 parsecs", ""),
    ("size", 0, ""),
    ("size", 1.5, ""),
    ("size", False, ""),
    ("size or 0", -1, ""),
    ("size", "9" * 400, ""),
    ("count:0..10", "4", "4"),
    ("count:0..10", -5, ""),
    ("count:1..10", 11, ""),
    ("count:0..10", 10**30, ""),
    ("count:0..10", True, ""),
    ("count:0..10", 2.0, ""),
    ("count:0..10", "²", ""),
    ("choice:auto|on|off", True, '"on"'),
    ("choice:auto|on|off", False, '"off"'),
    ("choice:debug|info", "inof", '"info"'),
    ("choice:debug|info", 3, ""),
    ("formula:0..10", 11, ""),
    ("formula:0..10", "2 * cpu", ""),
    ("formula:0..10", "cpus ** 2", ""),
    ("formula:0..10", 2.5, ""),
    ("mode", 0o660, ""),
    ("mode", 660, ""),
    ("mode", "0888", ""),
    ("mode", "", ""),
    ("mode", "rw-rw----", ""),
    ("name", "Web Server", '"web-server"'),
    ("name", "", ""),
    ("name", "9", ""),
    ("name", "x" * 41, '"' + "x" * 40 + '"'),
    ("names", "web", '["web"]'),
    ("names", [""], ""),
    ("names", [1], ""),
    ("addresses", [], ""),
    ("app", "wsgi.py", '"wsgi:application"'),
    ("app", "shop:make(os.environ)", '"shop:make"'),
    ("app", "shop:make(**x)", '"shop:make"'),
    ("app", "shop:make()()", '"shop:make()"'),
    ("app", "shop/wsgi.py:app", '"shop.wsgi:app"'),
    ("app", "", ""),
    ("app", "import os; os.abort()", ""),
    ("app", 7, ""),
    ("url path", "healthz", '"/healthz"'),
    ("url path", "http://localhost/healthz", '"/healthz"'),
    ("url path", "/a b", ""),
    ("url path", "/a\r\nHost: x", ""),
    ("path", "a\0b", ""),
    ("path", 1, ""),
    ("variables", {"A B": "x"}, ""),
    ("variables", {"A": 1}, ""),
    ("variables", "A=1", ""),
    ("roles", {"oprator": ["x"]}, '"operator"'),
    ("roles", {"operator": "deploy"}, ""),
    ("roles", {"operator": ["%"]}, ""),
    ("limits", {"nofiles": 4096}, '"nofile"'),
    ("limits", {"rss": 4096}, ""),
    ("limits", {"nofile": "2GiB"}, ""),
    ("limits", {"nofile": -1}, ""),
    ("limits", {"nofile": True}, ""),
    ("limits", {"nofile": [1, 2, 3]}, ""),
    ("limits", {"nofile": []}, ""),
    ("limits", {"nofile": [512, 256]}, ""),
    ("limits", {"nofile": ["unlimited", 256]}, ""),
    ("limits", {"as": "much"}, ""),
    ("limits", 4096, ""),
]


@pytest.mark.parametrize(("kind", "value", "expected"), GOOD, ids=repr)
def test_a_fitting_value_is_read(kind: str, value: object, expected: object) -> None:
    assert read(kind, value) == expected


@pytest.mark.parametrize(("kind", "value", "near"), BAD, ids=repr)
def test_an_unfit_value_is_refused_with_what_would_fit(kind: str, value: object, near: str) -> None:
    with pytest.raises(Unfit) as caught:
        read(kind, value)
    assert caught.value.nearest == near
    assert caught.value.expected


SUGGESTED = [row for row in BAD if row[2] and row[0] not in ("roles", "limits")]


@pytest.mark.parametrize(("kind", "value", "near"), SUGGESTED, ids=repr)
def test_what_is_suggested_does_fit(kind: str, value: object, near: str) -> None:
    read(kind, tomllib.loads(f"x = {near}")["x"])


@pytest.mark.parametrize(("kind", "value", "expected"), GOOD, ids=repr)
def test_a_shown_value_reads_as_itself(kind: str, value: object, expected: object) -> None:
    assert read(kind, tomllib.loads(f"x = {show(kind, expected)}")["x"]) == expected


@given(st.floats(min_value=0.001, max_value=values.LONGEST))
def test_any_duration_is_shown_to_the_microsecond(seconds: float) -> None:
    assert read("duration", tomllib.loads(f"x = {show('duration', seconds)}")["x"]) == pytest.approx(seconds, abs=1e-6)


@given(st.integers(min_value=1, max_value=1 << 60))
def test_any_size_is_shown_exactly(size: int) -> None:
    assert read("size", tomllib.loads(f"x = {show('size', size)}")["x"]) == size


@pytest.mark.parametrize(
    ("value", "text"),
    [(60.0, '"60s"'), (600.0, '"10m"'), (90.0, '"90s"'), (0.5, '"500ms"'), (7200.0, '"2h"'), (0.0, '"0s"')],
)
def test_a_duration_is_shown_as_a_person_would_write_it(value: float, text: str) -> None:
    assert show("duration", value) == text


@given(st.text())
def test_any_text_is_shown_as_toml(text: str) -> None:
    clean = text.encode("utf-8", "replace").decode()
    assert tomllib.loads(f"x = {show('path', clean)}")["x"] == clean


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("count:0..9", "4", 4),
        ("count:0..9", " -4 ", -4),
        ("count:0..9", "four", "four"),
        ("names", "web, admin,", ["web", "admin"]),
        ("names", "", []),
        ("duration", "30", "30"),
    ],
)
def test_text_of_flags_and_variables_becomes_the_value_a_file_would_hold(kind: str, text: str, value: object) -> None:
    assert values.from_text(kind, text) == value


@pytest.mark.parametrize(
    ("word", "expected"),
    [("workres", "workers"), ("wokers", "workers"), ("Workers", "workers"), ("bnid", "bind"), ("zzz", ""), ("", "")],
)
def test_the_nearest_name_is_found(word: str, expected: str) -> None:
    assert nearest(word, ["bind", "workers", "boot_timeout"]) == expected


def test_every_setting_is_of_a_known_kind_and_its_default_fits() -> None:
    for table in TABLES:
        for name, setting in declared(table).items():
            default = table._field_defaults[name]
            shown = show(setting.kind, default)
            optional = default == "" or default == ()
            assert values.describe(setting.kind)
            assert optional or read(setting.kind, tomllib.loads(f"x = {shown}")["x"]) == default, name
            assert not setting.help.endswith(".")
