"""Claims about what is agreed on with a client that offers compression (RFC 7692 section 7.1)."""

from __future__ import annotations

import pytest

from srvd.http.h1.refusal import Refusal
from srvd.http.ws.extensions import Agreement, Deflate, Offer, agree, read_offers

NAME = "permessage-deflate"
DEFAULT = Deflate()


def agreed(value: str, wanted: Deflate = DEFAULT) -> Agreement | None:
    return agree(read_offers(value), wanted)


@pytest.mark.parametrize(
    ("value", "offers"),
    [
        ("", []),
        ("a", [Offer("a", ())]),
        ("a, b;c ,, d ; e = f", [Offer("a", ()), Offer("b", (("c", None),)), Offer("d", (("e", "f"),))]),
        ('a; b=c;d="e" ', [Offer("a", (("b", "c"), ("d", "e")))]),
        (", a", [Offer("a", ())]),
        ('a; b="c\\d"', [Offer("a", (("b", "cd"),))]),
    ],
)  # fmt: skip
def test_offers_are_read_in_their_order(value: str, offers: list[Offer]) -> None:
    assert list(read_offers(value)) == offers


@pytest.mark.parametrize(
    "value",
    ["a b", "a;", "a; ;b", "a=b", ";a", "a; b=", 'a; b="c', 'a; b=""', 'a; b="c d"', "a; b=c d", "a\x00", "(a)"],
)
def test_what_is_no_list_of_extensions_is_refused(value: str) -> None:
    for text in (value, f"{NAME}, {value}"):
        with pytest.raises(Refusal) as refused:
            agreed(text)
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("value", "server_bits", "client_bits", "server_takeover", "client_takeover", "answer"),
    [
        (NAME, 12, 15, True, True, "server_max_window_bits=12"),
        (f"{NAME}; client_max_window_bits", 12, 12, True, True, "server_max_window_bits=12; client_max_window_bits=12"),
        (f"{NAME}; client_max_window_bits=10", 12, 10, True, True,
         "server_max_window_bits=12; client_max_window_bits=10"),
        (f"{NAME}; client_max_window_bits=8", 12, 8, True, True, "server_max_window_bits=12; client_max_window_bits=8"),
        (f"{NAME}; server_max_window_bits=9", 9, 15, True, True, "server_max_window_bits=9"),
        (f"{NAME}; server_max_window_bits=15", 12, 15, True, True, "server_max_window_bits=12"),
        (f"{NAME}; server_no_context_takeover", 12, 15, False, True,
         "server_no_context_takeover; server_max_window_bits=12"),
        (f"{NAME}; client_no_context_takeover", 12, 15, True, False,
         "client_no_context_takeover; server_max_window_bits=12"),
        (f'{NAME}; server_max_window_bits="10"', 10, 15, True, True, "server_max_window_bits=10"),
        (f"x-foo, {NAME}; unknown, {NAME}; server_max_window_bits=11, {NAME}", 11, 15, True, True,
         "server_max_window_bits=11"),
    ],
)  # fmt: skip
def test_the_first_offer_that_can_be_kept_is_taken(
    value: str, server_bits: int, client_bits: int, server_takeover: bool, client_takeover: bool, answer: str
) -> None:
    assert agreed(value) == Agreement(
        server_bits, client_bits, server_takeover, client_takeover, Deflate().threshold, f"{NAME}; {answer}".encode()
    )


@pytest.mark.parametrize(
    "parameters",
    [
        "unknown", "unknown=1", "server_max_window_bits", "server_max_window_bits=8",  # zlib has no such compressor
        "server_max_window_bits=16", "server_max_window_bits=7", "server_max_window_bits=09",
        "server_max_window_bits=+9", "client_max_window_bits=16", "client_max_window_bits=7",
        "client_max_window_bits=x", "server_no_context_takeover=1", "client_no_context_takeover=true",
        "server_no_context_takeover; server_no_context_takeover", "client_max_window_bits; client_max_window_bits=9",
    ],
)  # fmt: skip
def test_an_offer_that_cannot_be_kept_is_declined_and_the_next_one_looked_at(parameters: str) -> None:
    """RFC 7692 section 7.1: declining is no failure of the handshake."""
    assert agreed(f"{NAME}; {parameters}") is None
    assert agreed(f"{NAME}; {parameters}, {NAME}") == agreed(NAME)


def test_a_full_window_needs_no_word() -> None:
    agreement = agreed(f"{NAME}", Deflate(bits=15))
    assert agreement == Agreement(answer=NAME.encode())
