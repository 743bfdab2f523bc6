"""Claims about the family's messages: what an application says in them is never too long, and never unspeakable."""

from __future__ import annotations

import msgpack
import pytest

from srvd.errors import BadFrame
from srvd.wire import links


@pytest.mark.parametrize("sign", ["x", "\u20ac", "\U0001f40d", "\udcff"])
def test_the_longest_words_of_an_application_fit_into_a_datagram(sign: str) -> None:
    words = links.clip(sign * 1_000_000)
    message = links.LoadFailed(words, "a hint", words)
    datagram = links.encode(message)
    assert len(datagram) <= links.LIMIT
    assert links.decode(datagram, links.FROM_ZYGOTE) == message


def test_what_is_no_unicode_is_said_with_backslashes() -> None:
    datagram = links.encode(links.Failed("no such file: /data/\udcff", "Traceback \udcff"))
    said = links.decode(datagram, links.FROM_WORKER)
    assert said == links.Failed("no such file: /data/\\udcff", "Traceback \\udcff")


def test_names_of_modules_are_few_short_and_what_may_follow_import() -> None:
    said = [
        "shop.views",
        "",
        "shop..x",
        "os; exit()",
        "a-b",
        ".shop",
        "x" * (links.NAME_LIMIT + 1),
        "été",
        "\udcff",
        7,
    ]
    assert links.fitting_modules(said) == ["shop.views", "été"]
    for wrong in (*said[1:7], "\udcff", 7):
        datagram = msgpack.packb(["Warmed", ["shop.views", wrong]], unicode_errors="surrogatepass")
        with pytest.raises(BadFrame):
            links.decode(datagram, links.FROM_WORKER)


@pytest.mark.parametrize("sign", ["x", "é", "\U00010400"])
def test_as_many_modules_as_are_told_fit_into_a_datagram_and_not_one_more(sign: str) -> None:
    fitting = links.fitting_modules(f"m{number}_{sign * 60}" for number in range(10_000))
    assert links.MODULES_LIMIT >= len(fitting) > 400
    datagram = links.encode(links.Warmed(fitting))
    assert len(datagram) <= links.LIMIT
    assert links.decode(datagram, links.FROM_WORKER) == links.Warmed(fitting)
    more = ["m"] * (links.MODULES_LIMIT + 1)
    with pytest.raises(BadFrame):
        links.decode(links.encode(links.Warmed(more)), links.FROM_WORKER)
