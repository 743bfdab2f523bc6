"""Claims about the family's messages: what an application says in them is never too long, and never unspeakable."""

from __future__ import annotations

import pytest

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
