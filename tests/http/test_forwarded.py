"""Claims about trusted proxies: who is walked past, what is believed, what is taken out, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srvd.http.h1.limits import Limits
from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Client, Ends, Fields
from srvd.http.proxies.forwarded import FIELDS, FORWARDED, X_FORWARDED, ForwardedReader, believe, disbelieve
from srvd.http.proxies.networks import Networks
from srvd.worker.wsgi.environ import environ_key
from tests.support.http_feed import SINK, TEMPLATE, feed, request

INSIDE = Networks(["10.0.0.0/8", "192.168.7.7", "fd00::/8", "unix"])


KEYS = frozenset(environ_key(name.decode()) for name in FIELDS)


def named(**fields: str) -> Fields:
    told = {"host": "inner", **fields}
    return [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in told.items()]


def environ(fields: Fields, client: Client | None = None) -> dict[str, Any]:
    made = SINK.connection(Ends("10.0.0.1", "999")) | SINK.fields(fields)
    if client is not None:
        SINK.put_client(made, client)
    return made


def believed(family: str = X_FORWARDED, /, **fields: str) -> dict[str, Any]:
    return environ(*believe(named(**fields), family, INSIDE))


def refused(family: str = X_FORWARDED, /, **fields: str) -> int:
    with pytest.raises(Refusal) as caught:
        believed(family, **fields)
    return caught.value.status


# -- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("9.255.255.255", False),
        ("11.0.0.0", False),
        ("192.168.7.7", True),
        ("192.168.7.8", False),
        ("::ffff:10.1.1.1", True),
        ("fd12::1", True),
        ("fd12::1%eth0", True),
        ("fc00::1", False),
        ("::1", False),
        ("127.0.0.1", False),
        ("", True),  # through a Unix socket
        ("unix", False),
        ("10.0.0.1.", False),
        ("010.0.0.1", False),
        ("no address", False),
    ],
)
def test_an_address_is_in_a_network_or_not(address: str, inside: bool) -> None:
    assert (address in INSIDE) is inside
    assert (address in INSIDE) is inside  # and when it is remembered


def test_no_network_holds_nobody_loopback_neither() -> None:
    assert not any(address in Networks([]) for address in ("127.0.0.1", "::1", ""))


@pytest.mark.parametrize("word", ["10.0.0.1/8", "10.0.0.0/33", "all", "", "10.0.0.0/8 "])
def test_a_network_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Networks([word])


def test_networks_remember_a_bounded_number_of_addresses() -> None:
    networks = Networks(["10.0.0.0/8"])
    for number in range(5000):
        assert f"11.0.{number >> 8}.{number & 255}" not in networks
    assert len(networks._seen) <= 1024


# -- the walk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "client", "kept"),
    [
        ("1.2.3.4", "1.2.3.4", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4", "1.2.3.4", "1.2.3.4"),
        ("1.2.3.4, 10.0.0.2", "1.2.3.4", "1.2.3.4, 10.0.0.2"),
        ("10.9.9.9, 1.2.3.4, 10.0.0.3,10.0.0.2", "1.2.3.4", "1.2.3.4, 10.0.0.3, 10.0.0.2"),
        ("10.0.0.4, 10.0.0.3", "10.0.0.4", "10.0.0.4, 10.0.0.3"),  # a client of the inner network
        ("1.2.3.4, , 10.0.0.2,", "1.2.3.4", "1.2.3.4, 10.0.0.2"),
        ("fe80::1", "fe80::1", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1", "2001:DB8:0::1"),
        ("[2001:db8::1], fd00::1", "2001:db8::1", "[2001:db8::1], fd00::1"),
        ("::ffff:1.2.3.4", "1.2.3.4", "::ffff:1.2.3.4"),
        ("1.2.3.4, unknown", "", "unknown"),  # a trusted proxy that does not know: nothing left of it can be trusted
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_trusted(chain: str, client: str, kept: str) -> None:
    told = believed(x_forwarded_for=chain)
    assert told["REMOTE_ADDR"] == client
    assert told["HTTP_X_FORWARDED_FOR"] == kept
    assert "REMOTE_PORT" not in told


@pytest.mark.parametrize("chain", ["1.2.3.4:5678", "[2001:db8::1]:5678"])
def test_a_port_that_is_told_is_the_clients(chain: str) -> None:
    assert believed(x_forwarded_for=chain)["REMOTE_PORT"] == "5678"


@pytest.mark.parametrize(
    "chain",
    [
        "garbage", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:123456", "[::1",
        "[::1]x", "[::1]:", "[1.2.3.4]", "::::", "1::2::3", "fe80::1%eth0", "::1]", "1.2.3.4 5.6.7.8", "\xb9.2.3.4",
        "http://1.2.3.4", "1.2.3.4/8", "-", ":80", "localhost", '"10.0.0.7"', "010.001.002.003", "for=203.0.113.9",
        "unknown",
    ],
)  # fmt: skip
def test_what_is_no_address_is_a_client_that_is_not_known(chain: str) -> None:
    for told in (believed(x_forwarded_for=chain), believed(x_forwarded_for=f"1.2.3.4, {chain}, 10.0.0.2")):
        assert told["REMOTE_ADDR"] == ""
        assert "REMOTE_PORT" not in told
    # A proxy adds the address of its client to whatever that client has sent.
    behind = believed(x_forwarded_for=f"{chain}, 1.2.3.4")
    assert (behind["REMOTE_ADDR"], behind["HTTP_X_FORWARDED_FOR"]) == ("1.2.3.4", "1.2.3.4")


def test_what_is_left_of_the_client_is_never_read() -> None:
    chain = ", ".join(["-"] * 5_000 + ["1.2.3.4", "10.0.0.2"])
    told = believed(
        x_forwarded_for=f"gopher, {chain}",
        x_forwarded_proto=", ".join(["gopher"] * 5_001 + ["https", "http"]),
        x_forwarded_host=", ".join(["a/b"] * 5_001 + ["shop.example", "inner"]),
        x_forwarded_prefix=", ".join(["//"] * 5_001 + ["/shop", "/"]),
    )
    assert (told["REMOTE_ADDR"], told["wsgi.url_scheme"]) == ("1.2.3.4", "https")
    assert (told["HTTP_HOST"], told["SCRIPT_NAME"]) == ("shop.example", "/shop")


def test_a_chain_without_end_is_refused() -> None:
    assert refused(x_forwarded_for=", ".join(["10.0.0.2"] * 101)) == 400
    assert refused(FORWARDED, forwarded=", ".join(["for=10.0.0.2"] * 101)) == 400


def test_the_peer_stays_the_client_when_nothing_is_told() -> None:
    assert believed() == environ(named())
    assert believed(x_forwarded_for="", x_forwarded_proto=" ")["REMOTE_ADDR"] == "10.0.0.1"
    assert believed(x_forwarded_proto="https")["REMOTE_PORT"] == "999"


# -- scheme, host, prefix -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "proto", "scheme"),
    [
        ("1.2.3.4", "https", "https"),
        ("1.2.3.4", "HTTPS", "https"),
        ("1.2.3.4", "wss", "https"),
        ("1.2.3.4", "ws", "http"),
        ("1.2.3.4", "https, https", "https"),  # equal ones cannot be mistaken
        ("1.2.3.4, 10.0.0.2", "https", "https"),  # set, not added to
        ("1.2.3.4, 10.0.0.2", "https, http", "https"),  # beside the addresses
        ("6.6.6.6, 1.2.3.4", "https, http", "http"),  # the first is the client's invention
        ("", "https", "https"),
    ],
)
def test_the_scheme_is_that_of_the_client(chain: str, proto: str, scheme: str) -> None:
    told = believed(x_forwarded_for=chain, x_forwarded_proto=proto)
    assert told["wsgi.url_scheme"] == scheme
    assert told["HTTP_X_FORWARDED_PROTO"] == scheme


@pytest.mark.parametrize(
    "fields",
    [
        {"x_forwarded_for": "1.2.3.4", "x_forwarded_proto": "https, http"},
        {"x_forwarded_for": "1.2.3.4, 10.0.0.2", "x_forwarded_proto": "https, https, http"},
        {"x_forwarded_proto": "http, https"},
        {"x_forwarded_proto": "https", "x_forwarded_ssl": "off"},
        {"x_forwarded_proto": "http", "x_forwarded_ssl": "on"},
        {"x_forwarded_proto": "http", "x_forwarded_protocol": "https"},
        {"x_forwarded_proto": "http", "x_forwarded_scheme": "https"},
        {"x_forwarded_proto": "http", "x_url_scheme": "https"},
        {"x_forwarded_proto": "http", "front_end_https": "on"},
        {"x_forwarded_proto": "ftp"},
        {"x_forwarded_proto": "https\x85"},
    ],
)
def test_conflicting_schemes_are_refused(fields: dict[str, str]) -> None:
    assert refused(**fields) == 400


def test_a_scheme_said_twice_alike_is_no_conflict() -> None:
    told = believed(x_forwarded_proto="https", x_forwarded_ssl="on", front_end_https="on")
    assert told["wsgi.url_scheme"] == "https"
    assert not {"HTTP_X_FORWARDED_SSL", "HTTP_FRONT_END_HTTPS"} & told.keys()


def test_the_host_is_the_one_that_the_client_asked_for() -> None:
    assert believed(x_forwarded_host="shop.example:8443")["HTTP_HOST"] == "shop.example:8443"
    two = believed(x_forwarded_for="6.6.6.6, 1.2.3.4", x_forwarded_host="evil.example, shop.example")
    assert two["HTTP_HOST"] == "shop.example"
    assert two["HTTP_X_FORWARDED_HOST"] == "shop.example"


@pytest.mark.parametrize("host", ["a/b", "u@h", "a b", "a, b", "h:99999", "[::1", "é"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    assert refused(x_forwarded_host=host) == 400


@pytest.mark.parametrize(
    ("prefix", "script_name"),
    [("/shop", "/shop"), ("/shop/", "/shop"), ("/a/b%20c", "/a/b c"), ("/", ""), ("/gr%C3%B6%C3%9Fe", "/grÃ¶Ã\x9fe")],
)
def test_the_prefix_is_the_mount_point(prefix: str, script_name: str) -> None:
    assert believed(x_forwarded_prefix=prefix)["SCRIPT_NAME"] == script_name


@pytest.mark.parametrize("prefix", ["shop", "//evil", "/a?b", "/a#b", "/a b", "/%zz", "http://x/", "/a, /b", "/\\x"])
def test_a_prefix_that_is_no_path_is_refused(prefix: str) -> None:
    assert refused(x_forwarded_prefix=prefix) == 400


# -- RFC 7239 -------------------------------------------------------------------------------------------------------


def test_forwarded_tells_all_of_it_at_once() -> None:
    told = believed(FORWARDED, forwarded='for="[2001:db8::17]:4711";proto=https;host=shop.example;by=10.0.0.1')
    assert told["REMOTE_ADDR"] == "2001:db8::17"
    assert told["REMOTE_PORT"] == "4711"
    assert told["wsgi.url_scheme"] == "https"
    assert told["HTTP_HOST"] == "shop.example"


@pytest.mark.parametrize(
    ("text", "client", "kept"),
    [
        ("for=1.2.3.4", "1.2.3.4", "for=1.2.3.4"),
        ("For=1.2.3.4;Proto=http", "1.2.3.4", "For=1.2.3.4;Proto=http"),
        ("for=6.6.6.6;proto=https, for=1.2.3.4", "1.2.3.4", "for=1.2.3.4"),
        ("for=1.2.3.4, for=10.0.0.2", "1.2.3.4", "for=1.2.3.4, for=10.0.0.2"),
        ('for="a,b\\";c=d";x=y, for=1.2.3.4', "1.2.3.4", "for=1.2.3.4"),
        ('for=1.2.3.4;x="a,\\"b\\\\", for=10.0.0.2', "1.2.3.4", 'for=1.2.3.4;x="a,\\"b\\\\", for=10.0.0.2'),
        ("for=6.6.6.6;;, ;=, for=1.2.3.4", "1.2.3.4", "for=1.2.3.4"),
        ('for="localhost"', "", 'for="localhost"'),
        ('by="a,b\\";c=d";for=7.7.7.7, for=1.2.3.4 ; by=_x', "1.2.3.4", "for=1.2.3.4 ; by=_x"),
        (" , for=1.2.3.4,, ", "1.2.3.4", "for=1.2.3.4"),
        ("for=unknown", "", "for=unknown"),
        ("for=_SEVKISEK", "", "for=_SEVKISEK"),
        ('for="_gazonk:_port"', "", 'for="_gazonk:_port"'),
        ('for="1.2.3.4:_port"', "1.2.3.4", 'for="1.2.3.4:_port"'),
        ("for=1.2.3.4, proto=https", "", "proto=https"),  # says nothing of an address
    ],
)
def test_elements_are_walked_from_the_right(text: str, client: str, kept: str) -> None:
    told = believed(FORWARDED, forwarded=text)
    assert (told["REMOTE_ADDR"], told["HTTP_FORWARDED"]) == (client, kept)


@pytest.mark.parametrize(
    "text",
    [
        "for", "for=", "=x", "for=1.2.3.4;", "for=1.2.3.4;;proto=http", 'for="1.2.3.4', "for=1.2.3.4;for=5.6.7.8",
        "for = 1.2.3.4", "for=1.2.3.4 proto=http", "for=2001:db8::1", 'for="2001:db8::1"x', "proto=gopher",
        "for=1.2.3.4;host=a b", 'host="a/b"', "for=[::1]", 'for="[::1]', ";for=1.2.3.4", 'for="1.2.3.4\\"',
    ],
)  # fmt: skip
def test_malformed_elements_are_refused(text: str) -> None:
    assert refused(FORWARDED, forwarded=text) == 400


def test_an_open_quote_of_the_client_cannot_swallow_what_the_proxy_adds() -> None:
    for begun in ('for="6.6.6.6', 'for="6.6.6.6\\', '"', 'for="a", for="', 'for="a\\\\"b", "'):
        told = believed(FORWARDED, forwarded=f'{begun}, for=1.2.3.4;by="_a,b"')
        assert (told["REMOTE_ADDR"], told["HTTP_FORWARDED"]) == ("1.2.3.4", 'for=1.2.3.4;by="_a,b"')


def test_a_contradiction_with_the_other_family_is_refused() -> None:
    assert refused(FORWARDED, forwarded="for=1.2.3.4;proto=https", x_forwarded_proto="http") == 400


def test_forwarded_without_an_element_says_nothing() -> None:
    assert believed(FORWARDED, forwarded=" , ")["REMOTE_ADDR"] == "10.0.0.1"


# -- what is taken out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [X_FORWARDED, FORWARDED])
def test_only_the_chosen_family_stays(family: str) -> None:
    # Values that say nothing about a scheme, so that nothing conflicts.
    names = {name.decode() for name in FIELDS}
    told = {name: "1.2.3.4" for name in names if not any(word in name for word in ("proto", "scheme", "prefix"))}
    told |= {"forwarded": "for=1.2.3.4", "x-forwarded-user": "ann", "via": "1.1 a"}
    all_of_it = believed(family, **told)
    stay = {"HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST"} if family == X_FORWARDED else {"HTTP_FORWARDED"}
    assert KEYS & all_of_it.keys() == stay
    assert all_of_it["HTTP_X_FORWARDED_USER"] == "ann"


def test_what_a_stranger_says_is_taken_out_and_changes_nothing() -> None:
    told = named(**{name.decode(): "1.2.3.4" for name in FIELDS})
    assert disbelieve(told) == (named(), None)


TEXT = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=40)


@given(TEXT, TEXT, TEXT, st.sampled_from([X_FORWARDED, FORWARDED]))
def test_any_text_is_believed_or_refused(one: str, two: str, three: str, family: str) -> None:
    try:
        told = believed(family, x_forwarded_for=one, x_forwarded_proto=two, x_forwarded_host=three, forwarded=one)
    except Refusal:
        return
    assert told["wsgi.url_scheme"] in ("http", "https")


@given(TEXT.filter(lambda text: "," not in text), st.sampled_from([X_FORWARDED, FORWARDED]))
def test_no_text_of_the_client_refuses_what_a_proxy_adds_to_it(text: str, family: str) -> None:
    told = believed(family, x_forwarded_for=f"{text}, 9.9.9.9", forwarded=f"{text}, for=9.9.9.9")
    assert told["REMOTE_ADDR"] == "9.9.9.9"


@given(st.lists(st.sampled_from(["10.0.0.9", "1.1.1.1", "2.2.2.2", "fd00::9", "unknown"]), min_size=1, max_size=6))
def test_whatever_the_client_puts_before_its_own_address_changes_nothing(before: list[str]) -> None:
    honest = believed(x_forwarded_for="9.9.9.9, 10.0.0.2")
    assert believed(x_forwarded_for=", ".join([*before, "9.9.9.9", "10.0.0.2"])) == honest


# -- as a reader ----------------------------------------------------------------------------------------------------

ASKED = request("X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Real-IP: 6.6.6.6")


@pytest.mark.parametrize("cut", [len(ASKED) * 3, 1, 7])
def test_a_reader_believes_each_head_however_it_comes(cut: int) -> None:
    heads = ForwardedReader(Limits(), SINK, X_FORWARDED, INSIDE, trusted=True)
    data = ASKED * 3
    came = feed([data[at : at + cut] for at in range(0, len(data), cut)], heads=heads)
    assert [(m.environ["REMOTE_ADDR"], m.environ["wsgi.url_scheme"]) for m in came.messages] == [
        ("1.2.3.4", "https")
    ] * 3
    assert TEMPLATE["wsgi.url_scheme"] == "http"  # nothing of it stays for the next request
    plain = feed([request()], heads=heads).messages[0].environ
    assert plain["wsgi.url_scheme"] == "http"


def test_the_scheme_of_a_target_is_compared_with_what_the_proxy_says() -> None:
    """RFC 9110 section 7.4: the client's connection is the one that is spoken of."""
    trusting = ForwardedReader(Limits(), SINK, X_FORWARDED, INSIDE, trusted=True)
    target = "GET https://y/x HTTP/1.1"
    (message,) = feed([request("X-Forwarded-Proto: https", line=target)], heads=trusting).messages
    assert (message.environ["wsgi.url_scheme"], message.environ["HTTP_HOST"]) == ("https", "y")
    plain = request("X-Forwarded-Proto: https", line="GET http://y/x HTTP/1.1")
    assert feed([plain], heads=trusting).refused == 421
    assert feed([request("X-Forwarded-Proto: http", line=target)], heads=trusting).refused == 421
    stranger = ForwardedReader(Limits(), SINK, X_FORWARDED, INSIDE, trusted=False)
    assert feed([request("X-Forwarded-Proto: https", line=target)], heads=stranger).refused == 421


def test_a_reader_of_strangers_takes_their_words_out() -> None:
    heads = ForwardedReader(Limits(), SINK, X_FORWARDED, INSIDE, trusted=False)
    told = feed([ASKED], heads=heads).messages[0].environ
    assert not KEYS & told.keys()
    assert told["wsgi.url_scheme"] == "http"


def test_lines_of_one_field_are_one_list() -> None:
    heads = ForwardedReader(Limits(), SINK, X_FORWARDED, INSIDE, trusted=True)
    data = request("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 10.0.0.2")
    assert feed([data], heads=heads).messages[0].environ["REMOTE_ADDR"] == "1.2.3.4"


def test_a_refusal_ends_the_connection() -> None:
    heads = ForwardedReader(Limits(), SINK, X_FORWARDED, INSIDE, trusted=True)
    outcome = feed([request("X-Forwarded-Proto: https, http") + request()], heads=heads)
    assert outcome == ([], 400, False)
