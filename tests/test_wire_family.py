"""Claims about the family's messages: what an application says in them is never too long, and never unspeakable."""

from __future__ import annotations

import msgpack
import pytest

from srvd.errors import BadFrame
from srvd.wire import family


@pytest.mark.parametrize("sign", ["x", "\u20ac", "\U0001f40d", "\udcff"])
def test_the_longest_words_of_an_application_fit_into_a_datagram(sign: str) -> None:
    words = family.clip(sign * 1_000_000)
    message = family.LoadFailed(words, "a hint", words)
    datagram = family.encode(message)
    assert len(datagram) <= family.LIMIT
    assert family.decode(datagram, family.FROM_ZYGOTE) == message


def test_what_is_no_unicode_is_said_with_backslashes() -> None:
    datagram = family.encode(family.Failed("no such file: /data/\udcff", "Traceback \udcff"))
    said = family.decode(datagram, family.FROM_WORKER)
    assert said == family.Failed("no such file: /data/\\udcff", "Traceback \\udcff")


def test_names_of_modules_are_few_short_and_what_may_follow_import() -> None:
    said = [
        "shop.views",
        "",
        "shop..x",
        "os; exit()",
        "a-b",
        ".shop",
        "x" * (family.NAME_LIMIT + 1),
        "été",
        "\udcff",
        7,
    ]
    assert family.fitting_modules(said) == ["shop.views", "été"]
    for wrong in (*said[1:7], "\udcff", 7):
        datagram = msgpack.packb(["Warmed", ["shop.views", wrong]], unicode_errors="surrogatepass")
        with pytest.raises(BadFrame):
            family.decode(datagram, family.FROM_WORKER)


@pytest.mark.parametrize("sign", ["x", "é", "\U00010400"])
def test_as_many_modules_as_are_told_fit_into_a_datagram_and_not_one_more(sign: str) -> None:
    fitting = family.fitting_modules(f"m{number}_{sign * 60}" for number in range(10_000))
    assert family.MODULES_LIMIT >= len(fitting) > 400
    datagram = family.encode(family.Warmed(fitting))
    assert len(datagram) <= family.LIMIT
    assert family.decode(datagram, family.FROM_WORKER) == family.Warmed(fitting)
    more = ["m"] * (family.MODULES_LIMIT + 1)
    with pytest.raises(BadFrame):
        family.decode(family.encode(family.Warmed(more)), family.FROM_WORKER)
