"""Claims about the lines of the access log (http/access_line.py): each atom, the named formats, escapes, lengths."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srvd.http.access_format import PRESETS
from srvd.http.access_line import LONGEST, Place, Record, compile_format
from srvd.worker.wsgi.environ import LOG_NAMES

PLACE = Place(4711, lambda at: 3600, LOG_NAMES)
AT = 1_767_362_645.25  # 2026-01-02 14:04:05.25 UTC


def environ(**more: Any) -> dict[str, Any]:
    return {
        "REMOTE_ADDR": "192.0.2.7",
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/caf%C3%A9?q=1",
        "PATH_INFO": "/caf\xc3\xa9",
        "QUERY_STRING": "q=1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_REFERER": "http://a.example/",
        "HTTP_USER_AGENT": 'curl "8"',
        "HTTP_AUTHORIZATION": "Basic am9lOnNlY3JldA==",
        "HTTP_X_ID": "17",
        "CONTENT_TYPE": "text/plain",
        "srvd.worker": "web/3#17",
        **more,
    }


def record(code: int = 200, sent: int = 5120, took: float = 1.234567, **more: Any) -> Record:
    return Record(environ(**more), code, "Content-Type: text/html\r\nX-Cost: 3\r\n", sent, AT, took)


def line(text: str, one: Record | None = None, place: Place = PLACE) -> str:
    return compile_format(text, place)(one or record())


@pytest.mark.parametrize(
    ("atom", "expected"),
    {
        "h": "192.0.2.7",
        "l": "-",
        "u": "joe",
        "t": "[02/Jan/2026:15:04:05 +0100]",
        "r": "GET /caf%C3%A9?q=1 HTTP/1.1",
        "s": "200",
        "m": "GET",
        "U": "/caf\\xc3\\xa9",
        "q": "q=1",
        "H": "HTTP/1.1",
        "B": "5120",
        "b": "5120",
        "f": "http://a.example/",
        "a": "curl \\x228\\x22",
        "T": "1",
        "D": "1234567",
        "M": "1234",
        "L": "1.234567",
        "p": "<4711>",
        "{x-id}i": "17",
        "{Content-Type}i": "text/plain",
        "{x-none}i": "-",
        "{x-cost}o": "3",
        "{content-type}o": "text/html",
        "{x-none}o": "-",
        "{srvd.worker}e": "web/3#17",
        "{none}e": "-",
    }.items(),
)
def test_each_atom_says_what_is_documented(atom: str, expected: str) -> None:
    assert line(f"<%({atom})s>") == f"<{expected}>"


def test_common_and_combined_are_the_formats_they_are_named_after() -> None:
    common = '192.0.2.7 - joe [02/Jan/2026:15:04:05 +0100] "GET /caf%C3%A9?q=1 HTTP/1.1" 200 5120'
    assert line("common") == common == line(PRESETS["common"])
    assert line("combined") == f'{common} "http://a.example/" "curl \\x228\\x22"' == line(PRESETS["combined"])
    empty = Record({"REMOTE_ADDR": ""}, 400, "", 0, AT, 0.0)  # a refused request of a Unix socket
    assert line("combined", empty) == '- - - [02/Jan/2026:15:04:05 +0100] "-" 400 - "-" "-"'
    assert line("combined", empty) == line(PRESETS["combined"], empty)


def test_json_is_one_object_with_numbers_as_numbers() -> None:
    found = json.loads(line("json", record(HTTP_HOST="shop.example")))
    assert found == {
        "time": "2026-01-02T15:04:05.250000+01:00",
        "remote": "192.0.2.7",
        "host": "shop.example",
        "method": "GET",
        "target": "/caf%C3%A9?q=1",
        "protocol": "HTTP/1.1",
        "referer": "http://a.example/",
        "user_agent": 'curl "8"',
        "worker": "web/3#17",
        "status": 200,
        "body_bytes": 5120,
        "duration_s": 1.234567,
    }


def test_a_time_zone_west_of_greenwich_has_a_minus() -> None:
    place = Place(1, lambda at: -12_600, LOG_NAMES)
    assert line("%(t)s", place=place) == "[02/Jan/2026:10:34:05 -0330]"


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ("a\tb", "a\\x09b"),
        ("a\r\nb", "a\\x0d\\x0ab"),
        ('say "no"', "say \\x22no\\x22"),
        ("C:\\x41", "C:\\x5cx41"),
        ("caf\xe9", "caf\\xe9"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x7f", "\\x7f"),
        ("\u20ac", "\\xe2\\x82\\xac"),
    ],
)
def test_what_is_no_printable_ascii_is_escaped_and_so_are_quotes_and_backslashes(value: str, spelled: str) -> None:
    assert line("%({x}e)s", record(x=value)) == spelled


@pytest.mark.parametrize("text", ["combined", "json", "%(h)s"])
def test_an_address_that_a_proxy_made_up_cannot_forge_a_line(text: str) -> None:
    spelled = line(text, record(REMOTE_ADDR='unknown"\n1.2.3.4'))
    assert spelled.isprintable()
    assert "unknown\\x22\\x0a1.2.3.4" in spelled or "unknown\\u0022\\u000a1.2.3.4" in spelled


def test_the_user_of_basic_authentication_cannot_shift_the_columns() -> None:
    assert line("%(u)s", record(HTTP_AUTHORIZATION="basic am9lIGRvZQ==")) == "joe\\x20doe"
    for odd in ("Basic !", "Basic", "Bearer am9l", "Basic OnNlY3JldA==", ""):
        assert line("%(u)s", record(HTTP_AUTHORIZATION=odd)) == "-"


def test_a_percent_sign_is_written_twice() -> None:
    assert line("100%% %(s)s%%") == "100% 200%"


def test_what_is_no_format_is_not_compiled() -> None:
    with pytest.raises(ValueError, match="there is no atom"):
        compile_format("%(x)s", PLACE)


@pytest.mark.parametrize("longest", [LONGEST, 4096])
@pytest.mark.parametrize("text", ["common", "combined", "json", "%(r)s %({x}e)s %({x}e)s " * 4, PRESETS["combined"]])
@pytest.mark.parametrize("filling", ["a", "\xff", '"', "\u20ac"])
def test_no_line_is_longer_than_its_limit(text: str, filling: str, longest: int) -> None:
    long = filling * 20_000
    one = record(RAW_URI=f"/{long}", HTTP_REFERER=long, HTTP_USER_AGENT=long, x=long, HTTP_HOST=long)
    spelled = line(text, one, PLACE._replace(longest=longest))
    assert len(spelled) < longest
    if text == "json":
        assert json.loads(spelled)["status"] == 200
    elif "combined" in text:
        assert '... HTTP/1.1" 200 5120 "' in spelled  # what is long is cut, what comes after it is there


def test_a_target_of_five_thousand_bytes_is_logged_as_received() -> None:
    target = "/" + "x%20" * 1250
    assert f'"GET {target} HTTP/1.1" 200' in line("combined", record(RAW_URI=target))


@given(st.text(), st.sampled_from(["combined", "json", "%({x}e)s|%(U)s|%(f)s"]))
def test_any_value_gives_one_line_of_printable_ascii(value: str, text: str) -> None:
    latin = value.encode("utf-8", "surrogatepass").decode("latin-1")
    spelled = line(text, record(x=value, PATH_INFO=latin, HTTP_REFERER=latin, HTTP_USER_AGENT=latin))
    assert spelled.isascii()
    assert spelled.isprintable()
    if text == "json":
        told = json.loads(spelled)["referer"]
        assert told == latin or latin.startswith(told.removesuffix("..."))
