"""The rules on requests, each with its source: what is refused, with which status, however the bytes come in."""

from __future__ import annotations

import pytest

from srvd.http.h1.limits import Limits
from tests.support.http_feed import bytewise, request, whole

CHUNKED = "Transfer-Encoding: chunked"

REFUSED: list[tuple[str, bytes, int]] = [
    # The request line
    ("rfc9112_3_two_spaces_before_the_target", request(line="GET  / HTTP/1.1"), 400),
    ("rfc9112_3_two_spaces_before_the_version", request(line="GET /  HTTP/1.1"), 400),
    ("rfc9112_3_a_tab_instead_of_a_space", request(line="GET\t/ HTTP/1.1"), 400),
    ("rfc9112_3_a_space_after_the_version", request(line="GET / HTTP/1.1 "), 400),
    ("rfc9112_3_a_space_before_the_method", request(line=" GET / HTTP/1.1"), 400),
    ("rfc9112_3_no_target", request(line="GET HTTP/1.1"), 400),
    ("rfc9112_3_a_space_in_the_target", request(line="GET /a b HTTP/1.1"), 400),
    ("rfc9112_3_a_nul_in_the_target", request(line="GET /\0 HTTP/1.1"), 400),
    ("rfc9112_3_bytes_over_127_in_the_target", request(line="GET /\xe9 HTTP/1.1"), 400),
    ("rfc9112_2_3_http_in_small_letters", request(line="GET / http/1.1"), 400),
    ("rfc9112_2_3_rtsp", request(line="GET / RTSP/1.0"), 400),
    ("rfc9112_2_3_ice", request(line="SOURCE / ICE/1.0"), 400),
    ("rfc9112_2_3_version_0_9", request(line="GET / HTTP/0.9"), 505),
    ("rfc9112_2_3_version_1_2", request(line="GET / HTTP/1.2"), 505),
    ("rfc9112_2_3_version_2_0", request(line="GET / HTTP/2.0"), 505),
    ("rfc9112_2_3_version_9_9", request(line="GET / HTTP/9.9"), 505),
    ("rfc9112_2_3_version_1_10", request(line="GET / HTTP/1.10"), 400),
    ("rfc9112_2_3_version_with_plus", request(line="GET / HTTP/1.+1"), 400),
    ("rfc9112_2_3_no_version_at_all", b"GET /\r\n\r\n", 400),
    ("rfc9113_3_4_the_preface_of_http_2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("rfc9110_9_a_method_of_49_bytes", request(line=f"{'A' * 49} / HTTP/1.1"), 501),
    ("rfc9110_9_an_empty_method", request(line=" / HTTP/1.1"), 400),
    ("rfc9110_9_a_method_over_127", request(line="G\xe9T / HTTP/1.1"), 400),
    ("rfc9110_9_a_method_with_a_slash", request(line="GE/T / HTTP/1.1"), 400),
    ("rfc9110_9_3_6_connect", request(line="CONNECT a:80 HTTP/1.1"), 501),
    ("rfc9110_9_3_6_connect_to_a_path", request(line="CONNECT / HTTP/1.1"), 501),
    ("rfc9112_3_2_a_fragment", request(line="GET /a#b HTTP/1.1"), 400),
    ("rfc9112_3_2_a_relative_path", request(line="GET a/b HTTP/1.1"), 400),
    ("rfc9112_3_2_4_a_star_for_get", request(line="GET * HTTP/1.1"), 400),
    ("rfc9112_3_2_4_a_star_and_more", request(line="OPTIONS *x HTTP/1.1"), 400),
    ("rfc9112_3_2_2_another_scheme", request(line="GET ftp://a/ HTTP/1.1"), 400),
    ("rfc9112_3_2_2_no_authority", request(line="GET http:///a HTTP/1.1"), 400),
    ("rfc9112_3_2_2_a_user_in_the_target", request(line="GET http://me@a/ HTTP/1.1"), 400),
    ("rfc9112_3_2_2_a_comma_in_the_authority", request(line="GET http://a,b/ HTTP/1.1"), 400),
    ("rfc9112_3_2_2_no_host_beside_an_absolute_target", request(line="GET http://a/ HTTP/1.1", host=None), 400),
    ("rfc9110_7_4_https_on_a_plain_connection", request(line="GET https://a/ HTTP/1.1"), 421),
    ("tls_on_a_plain_port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    # Line ends
    ("rfc9112_2_2_bare_lf_everywhere", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("rfc9112_2_2_bare_lf_after_the_line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    ("rfc9112_2_2_bare_lf_after_a_field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    ("rfc9112_2_2_bare_cr_in_a_value", request("X: a\rb"), 400),
    ("rfc9112_2_2_bare_cr_in_the_line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
    ("rfc9112_2_2_a_bare_lf_before_the_line", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    # Fields
    ("rfc9112_5_1_a_space_before_the_colon", request("X : a"), 400),
    ("rfc9112_5_1_a_tab_before_the_colon", request("X\t: a"), 400),
    ("rfc9112_5_2_obs_fold", request("X: a", " b"), 400),
    ("rfc9112_5_2_a_space_before_the_first_field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("rfc9110_5_1_an_empty_name", request(": a"), 400),
    ("rfc9110_5_1_no_colon", request("X"), 400),
    ("rfc9110_5_1_a_name_with_a_paren", request("X(: a"), 400),
    ("rfc9110_5_1_a_name_over_127", request("X\xe9: a"), 400),
    ("rfc9110_5_1_a_nul_in_a_name", request("X\0: a"), 400),
    ("rfc9110_5_5_a_nul_in_a_value", request("X: a\0b"), 400),
    ("rfc9110_5_5_a_control_in_a_value", request("X: a\x01b"), 400),
    ("rfc9110_5_5_del_in_a_value", request("X: a\x7fb"), 400),
    # Host
    ("rfc9112_3_2_no_host", request(host=None), 400),
    ("rfc9112_3_2_two_hosts", request("Host: b"), 400),
    ("rfc9112_3_2_the_same_host_twice", request("Host: a"), 400),
    ("rfc9112_3_2_two_hosts_in_1_0", request("Host: b", line="GET / HTTP/1.0"), 400),
    ("rfc9112_3_2_an_empty_host_and_another", request("Host: a", host=""), 400),
    ("rfc9112_3_2_a_host_and_an_empty_one", request("Host:"), 400),
    ("rfc9112_3_2_a_host_with_a_path", request(host="a/b"), 400),
    ("rfc9112_3_2_a_host_with_a_user", request(host="me@a"), 400),
    ("rfc9112_3_2_a_host_with_a_space", request(host="a b"), 400),
    ("rfc9112_3_2_a_list_of_hosts", request(host="a, b"), 400),
    ("rfc9112_3_2_a_host_with_a_quote", request(host='a"b'), 400),
    ("rfc9112_3_2_a_host_with_a_backslash", request(host="a\\b"), 400),
    ("rfc9112_3_2_a_host_over_127", request(host="\xe9"), 400),
    ("rfc9112_3_2_a_port_that_is_no_number", request(host="a:b"), 400),
    ("rfc9112_3_2_a_port_too_big", request(host="a:65536"), 400),
    ("rfc9112_3_2_two_ports", request(host="a:1:2"), 400),
    ("rfc9112_3_2_an_open_bracket", request(host="[::1"), 400),
    ("rfc3986_3_2_2_one_colon_too_few", request(host="[:1]"), 400),
    ("rfc3986_3_2_2_one_colon_too_many", request(host="[:::1]"), 400),
    ("rfc3986_3_2_2_seven_groups", request(host="[1:2:3:4:5:6:7]"), 400),
    ("rfc3986_3_2_2_nine_groups", request(host="[1:2:3:4:5:6:7:8:9]"), 400),
    ("rfc3986_3_2_2_a_group_of_five_digits", request(host="[::12345]"), 400),
    ("rfc3986_3_2_2_two_shortened_runs", request(host="[1::2::3]"), 400),
    ("rfc3986_3_2_2_a_bad_ipv4_in_an_ipv6", request(host="[::1.2.3.256]"), 400),
    ("rfc3986_3_2_2_an_ipv4_in_brackets", request(host="[1.2.3.4]"), 400),
    ("rfc9112_3_2_a_bad_percent", request(host="a%zz"), 400),
    ("rfc9112_3_2_only_a_port", request(host=":80"), 400),
    # Framing
    ("rfc9112_6_3_length_and_coding", request("Content-Length: 3", CHUNKED), 400),
    ("rfc9112_6_3_coding_and_length", request(CHUNKED, "Content-Length: 3"), 400),
    ("rfc9112_6_3_two_lengths", request("Content-Length: 3", "Content-Length: 4"), 400),
    ("rfc9112_6_3_the_same_length_twice", request("Content-Length: 3", "Content-Length: 3"), 400),
    ("rfc9110_8_6_a_list_of_lengths", request("Content-Length: 3, 3"), 400),
    ("rfc9110_8_6_a_signed_length", request("Content-Length: +3"), 400),
    ("rfc9110_8_6_a_negative_length", request("Content-Length: -3"), 400),
    ("rfc9110_8_6_a_length_with_an_underscore", request("Content-Length: 0_3"), 400),
    ("rfc9110_8_6_a_hexadecimal_length", request("Content-Length: 0x3"), 400),
    ("rfc9110_8_6_an_empty_length", request("Content-Length:"), 400),
    ("rfc9110_8_6_a_length_in_superscript", request("Content-Length: \xb3"), 400),
    ("rfc9110_8_6_a_length_of_19_digits", request("Content-Length: 0000000000000000003"), 400),
    ("rfc9110_8_6_a_length_of_4301_digits", request("Content-Length: " + "1" * 4301), 400),
    ("rfc9110_8_3_two_content_types", request("Content-Type: a/b", "Content-Type: a/b"), 400),
    ("rfc9112_6_1_chunked_in_1_0", request(CHUNKED, line="POST / HTTP/1.0"), 400),
    ("rfc9112_6_1_chunked_twice", request(CHUNKED, CHUNKED), 400),
    ("rfc9112_6_1_chunked_in_a_folded_line", request("Transfer-Encoding:", " chunked"), 400),
    ("rfc9112_6_1_chunked_behind_a_form_feed", request("Transfer-Encoding: chunked\x0c"), 400),
    ("rfc9112_6_1_chunked_chunked", request("Transfer-Encoding: chunked, chunked"), 400),
    ("rfc9112_6_1_an_unknown_coding", request("Transfer-Encoding: gzip"), 400),
    ("rfc9112_6_1_gzip_then_chunked", request("Transfer-Encoding: gzip, chunked"), 501),
    ("rfc9112_6_1_chunked_then_gzip", request("Transfer-Encoding: chunked, gzip"), 400),
    ("rfc9112_6_1_identity", request("Transfer-Encoding: identity"), 400),
    ("rfc9112_6_1_an_empty_coding", request("Transfer-Encoding:"), 400),
    ("rfc9112_6_1_chunked_with_a_vertical_tab", request("Transfer-Encoding: \x0bchunked"), 400),
    ("rfc9112_6_1_chunked_with_a_parameter", request("Transfer-Encoding: chunked;x=1"), 400),
    ("rfc9112_6_1_a_quoted_coding", request('Transfer-Encoding: "chunked"'), 400),
    # Expectations
    ("rfc9110_10_1_1_an_unknown_expectation", request("Expect: 200-ok"), 417),
    ("rfc9110_10_1_1_two_expectations", request("Expect: 100-continue, x"), 417),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(data: bytes, status: int) -> None:
    assert whole(data) == ([], status, False)
    assert whole(data + request(line="GET /next HTTP/1.1")) == ([], status, False)
    assert bytewise(data) == ([], status, False)


ACCEPTED: list[tuple[str, bytes, str]] = [
    ("rfc9112_2_2_empty_lines_before_it", b"\r\n\r\n" + request(), "GET /"),
    ("rfc9112_3_a_target_of_8000_bytes", request(line=f"GET /{'x' * 7999} HTTP/1.1"), f"GET /{'x' * 7999}"),
    ("rfc9112_3_2_1_two_slashes_stay", request(line="GET //evil/x HTTP/1.1"), "GET //evil/x"),
    ("rfc9112_3_2_1_characters_of_urls", request(line="GET /!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~ HTTP/1.1"),
     "GET /!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~"),
    ("rfc9112_3_2_2_an_absolute_target", request(line="GET HTTP://a:80/x?y HTTP/1.1"), "GET HTTP://a:80/x?y"),
    ("rfc9112_3_2_4_a_star_for_options", request(line="OPTIONS * HTTP/1.1"), "OPTIONS *"),
    ("rfc9110_9_methods_of_webdav", request(line="PROPFIND / HTTP/1.1"), "PROPFIND /"),
    ("rfc9110_9_any_token_is_a_method", request(line="BAN / HTTP/1.1"), "BAN /"),
    ("rfc9110_9_a_method_of_deltav", request(line="VERSION-CONTROL /a?b HTTP/1.1"), "VERSION-CONTROL /a?b"),
    ("rfc9110_9_a_method_in_small_letters", request(line="get / HTTP/1.1"), "get /"),
    ("rfc9110_9_a_method_of_rtsp", request(line="PLAY / HTTP/1.1"), "PLAY /"),
    ("rfc9110_9_a_method_of_odd_letters", request(line="!#$%&'*+-.^_`|~ / HTTP/1.1"), "!#$%&'*+-.^_`|~ /"),
    ("rfc9110_9_a_method_of_48_bytes", request(line=f"{'A' * 48} / HTTP/1.1"), f"{'A' * 48} /"),
    ("rfc9113_3_4_pri_as_a_method", request(line="PRI / HTTP/1.1"), "PRI /"),
    ("rfc9110_9_a_method_with_a_hyphen", request(line="M-SEARCH / HTTP/1.1"), "M-SEARCH /"),
    ("rfc9112_3_2_no_host_in_1_0", request(line="GET / HTTP/1.0", host=None), "GET /"),
    ("rfc9110_7_2_an_empty_host", request(host=""), "GET /"),
    ("rfc9110_7_2_an_empty_host_of_white_space", request(host=" \t"), "GET /"),
    ("rfc9110_7_2_an_empty_host_in_1_0", request(line="GET / HTTP/1.0", host=""), "GET /"),
    ("rfc9112_3_2_a_host_with_a_port", request(host="a:8000"), "GET /"),
    ("rfc9112_3_2_a_host_with_an_empty_port", request(host="a:"), "GET /"),
    ("rfc9112_3_2_an_address_of_ipv6", request(host="[::1]:8000"), "GET /"),
    ("rfc9112_3_2_an_underscore_in_a_host", request(host="my_app"), "GET /"),
    ("rfc9112_5_1_no_space_after_the_colon", request("X:a"), "GET /"),
    ("rfc9110_5_5_bytes_over_127_in_a_value", request("X: \xe9"), "GET /"),
    ("rfc9110_5_5_an_empty_value", request("X:"), "GET /"),
    ("rfc9110_8_6_a_length_of_zero", request("Content-Length: 0"), "GET /"),
    ("rfc9110_10_1_1_no_expectation_at_all", request("Expect:"), "GET /"),
    ("rfc9110_10_1_1_the_same_expectation_twice", request("Expect: 100-continue", "expect: ,100-Continue"), "GET /"),
    ("rfc9110_10_1_1_an_expectation_in_1_0", request("Expect: x", line="GET / HTTP/1.0"), "GET /"),
    ("rfc9110_7_8_an_upgrade_that_is_ignored", request("Connection: Upgrade", "Upgrade: websocket"), "GET /"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "label"), [case[1:] for case in ACCEPTED], ids=[case[0] for case in ACCEPTED])
def test_accepted(data: bytes, label: str) -> None:
    for outcome in (whole(data), bytewise(data)):
        assert [message.label for message in outcome.messages] == [label]
        assert (outcome.refused, outcome.pending) == (0, False)
    followed = whole(data + request(line="GET /next HTTP/1.1"))
    one_oh = b"HTTP/1.0" in data
    assert [message.label for message in followed.messages] == [label] if one_oh else [label, "GET /next"]


SIZES: list[tuple[str, bytes, int]] = [
    ("a_target_at_its_limit", request(line=f"GET /{'x' * 99} HTTP/1.1"), 0),
    ("a_target_over_its_limit", request(line=f"GET /{'x' * 100} HTTP/1.1"), 414),
    ("a_line_far_over_its_limit", request(line=f"GET /{'x' * 1000} HTTP/1.1"), 414),
    ("a_field_at_its_limit", request("X: " + "y" * 197), 0),
    ("a_field_over_its_limit", request("X: " + "y" * 198), 431),
    ("fields_at_their_limit", request(*["X: y"] * 9), 0),
    ("fields_over_their_limit", request(*["X: y"] * 10), 431),
    ("a_head_at_its_limit", request("X: " + "y" * 177, "Y: " + "y" * 186), 0),
    ("a_head_over_its_limit", request("X: " + "y" * 177, "Y: " + "y" * 187), 431),
    ("a_head_without_end", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000, 431),
    ("a_body_at_its_limit", request("Content-Length: 10", body=b"x" * 10), 0),
    ("a_body_over_its_limit", request("Content-Length: 11", body=b"x" * 11), 413),
]


@pytest.mark.parametrize(("data", "status"), [case[1:] for case in SIZES], ids=[case[0] for case in SIZES])
def test_sizes(data: bytes, status: int) -> None:
    limits = Limits(head=400, line=100, field=200, fields=10, body=10)
    for outcome in (whole(data, limits), bytewise(data, limits)):
        assert outcome.refused == status
        assert len(outcome.messages) == (status == 0)


def test_no_limit_of_the_body_is_no_limit() -> None:
    assert whole(request("Content-Length: 999999999999999999"), Limits(body=0)).refused == 0


def test_the_authority_of_an_absolute_target_replaces_the_host() -> None:
    """RFC 9112 section 3.2.2."""
    (message,) = whole(request(line="GET http://b:81?q HTTP/1.1")).messages
    environ = message.environ
    assert (environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"]) == ("b:81", "/", "q")
    assert environ["RAW_URI"] == "http://b:81?q"


@pytest.mark.parametrize(
    ("line", "fields", "stays"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: keep-alive"], True),
        ("1.1", ["Connection: close"], False),
        ("1.1", ["Connection: CLOSE"], False),
        ("1.1", ["Connection: foo, close"], False),
        ("1.1", ["Connection: foo", "Connection: bar , close"], False),
        ("1.1", ["Connection: keep-alive, close"], False),
        ("1.1", ["Connection: closed"], True),
        ("1.1", ["Connection:"], True),
        ("1.1", ["Proxy-Connection: close"], True),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], True),
        ("1.0", ["Connection: Keep-Alive, foo"], True),
        ("1.0", ["Connection: keep-alive, close"], False),
        ("1.0", ["Proxy-Connection: keep-alive"], False),
    ],
)
def test_rfc9112_9_3_who_stays_connected(line: str, fields: list[str], stays: bool) -> None:
    data = request(*fields, line=f"GET / HTTP/{line}")
    outcome = whole(data * 3)
    assert [message.keep_alive for message in outcome.messages] == ([True] * 3 if stays else [False])


@pytest.mark.parametrize(
    "value", ["chunked", " chunked", "  chunked ", "\tchunked\t", " \t CHUNKED \t \t", "Chunked\t"]
)
def test_rfc9110_5_5_white_space_around_a_coding_is_no_part_of_it(value: str) -> None:
    data = request(f"Transfer-Encoding:{value}", "X: a\t", line="POST / HTTP/1.1", body=b"3\r\nabc\r\n0\r\n\r\n")
    for outcome in (whole(data * 2), bytewise(data * 2)):
        assert [message.body for message in outcome.messages] == [b"abc", b"abc"]
        assert outcome.messages[0].environ["HTTP_TRANSFER_ENCODING"].lower() == "chunked"


def test_a_line_of_white_space_is_a_folded_one_whatever_follows() -> None:
    for blank in (" ", "\t", " \t "):
        assert whole(request("X: a", blank)).refused == 400
        assert whole(request(blank)).refused == 400
        assert whole(request("X: a", blank, "Y: b")).refused == 400


def test_rfc9110_7_2_a_client_that_knows_no_name_sends_an_empty_host() -> None:
    """The application finds no HTTP_HOST then: frameworks go by SERVER_NAME, as for HTTP/1.0 without the field."""
    assert "HTTP_HOST" not in whole(request(host="")).messages[0].environ
    absolute = whole(request(line="GET http://b/ HTTP/1.1", host="")).messages[0].environ
    assert absolute["HTTP_HOST"] == "b"


def test_fields_reach_the_environ_as_pep_3333_has_them() -> None:
    data = request(
        "Content-Type: text/plain", "X-Two: 1 \t", "X-TWO:\t2 ", "Cookie: a=1", "cookie: b=2", "X-Space: \t a b \t",
        "X_Two: evil", "Proxy: evil", "X-Empty: ", "x-latin: \xe9",
    )  # fmt: skip
    for outcome in (whole(data), bytewise(data)):
        environ = outcome.messages[0].environ
        assert {key: value for key, value in environ.items() if key.startswith(("HTTP_", "CONTENT_"))} == {
            "HTTP_HOST": "a",
            "CONTENT_TYPE": "text/plain",
            "HTTP_X_TWO": "1,2",
            "HTTP_COOKIE": "a=1; b=2",
            "HTTP_X_SPACE": "a b",
            "HTTP_X_EMPTY": "",
            "HTTP_X_LATIN": "\xe9",
        }


def test_the_path_is_decoded_and_the_target_is_kept() -> None:
    (message,) = whole(request(line="GET /%41%20%c3%A9%zz%?%41 HTTP/1.1")).messages
    environ = message.environ
    assert environ["PATH_INFO"] == "/A \xc3\xa9%zz%"
    assert (environ["QUERY_STRING"], environ["RAW_URI"]) == ("%41", "/%41%20%c3%A9%zz%?%41")


@pytest.mark.parametrize("name", ["X_User", "_", "a_", "Content_Length"])
def test_a_name_with_an_underscore_is_refused_if_that_is_asked_for(name: str) -> None:
    data = request(f"{name}: 1")
    assert whole(data).refused == 0
    assert whole(data, Limits(underscores=False)).refused == 400


def test_a_trailer_with_an_underscore_is_refused_if_that_is_asked_for() -> None:
    data = request("Transfer-Encoding: chunked") + b"0\r\nX_User: 1\r\n\r\n"
    assert whole(data).refused == 0
    assert whole(data, Limits(underscores=False)).refused == 400
