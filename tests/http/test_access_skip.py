"""Claims about `srvd.http.access_skip`: which requests a rule of the access log fits."""

from __future__ import annotations

import pytest

from srvd.http.access_skip import compile_rules, explain_rule


@pytest.mark.parametrize(
    ("rule", "fitting", "others"),
    [
        (
            "/healthz",
            [("GET", "/healthz", 200), ("HEAD", "/healthz", 503)],
            [("GET", "/healthz/", 200), ("GET", "/", 200)],
        ),
        ("/healthz 2xx", [("GET", "/healthz", 204)], [("GET", "/healthz", 503), ("GET", "/a", 200)]),
        ("GET /a/*", [("GET", "/a/b/c", 404), ("GET", "/a/", 200)], [("POST", "/a/b", 200), ("GET", "/a", 200)]),
        ("304", [("GET", "/x", 304)], [("GET", "/x", 301), ("GET", "/304", 200)]),
        ("OPTIONS", [("OPTIONS", "/x y\n", 200)], [("OPTION", "/x", 200)]),
        ("/a.b*c", [("GET", "/a.b-c", 200)], [("GET", "/axb-c", 200)]),
    ],
)
def test_a_rule_fits_if_all_of_it_does(
    rule: str, fitting: list[tuple[str, str, int]], others: list[tuple[str, str, int]]
) -> None:
    fits = compile_rules(["/never", rule])
    assert all(fits(*one) for one in fitting)
    assert not any(fits(*one) for one in others)


@pytest.mark.parametrize("rule", ["", "  ", "/a /b", "GET POST", "200 404", "6xx", "get /a", "healthz", "2x", "GE"])
def test_what_is_no_rule_is_explained(rule: str) -> None:
    assert explain_rule(rule)
    with pytest.raises(ValueError, match=r"rule|is no path"):
        compile_rules([rule])
