"""Claims about words of an application in a sentence: a viewer is told the sentence, and never the words."""

from __future__ import annotations

import pytest

from srvd.quoting import quoted, without_quotes
from srvd.wire.messages import WITHHELD, public

WORDS = ["KeyError: 'port'", "", "“forged” secret ”", "”", "“", "a\nb", "“" * 500]


@pytest.mark.parametrize("words", WORDS)
def test_nothing_between_quotes_is_left(words: str) -> None:
    sentence = f"worker web/1#1 could not boot: {quoted(words)}; nothing was loaded"
    assert without_quotes(sentence, "…") == "worker web/1#1 could not boot: …; nothing was loaded"


def test_of_a_quote_that_was_cut_off_nothing_is_left_either() -> None:
    assert without_quotes(f"raised {quoted('a secret')}"[:-3], "…") == "raised …"


def test_of_several_quotes_all_is_left_out_from_the_first_to_the_last() -> None:
    assert without_quotes(f"a {quoted('x')} b {quoted('y')} c", "…") == "a … c"


def test_a_sentence_without_words_of_others_stays() -> None:
    assert without_quotes('load "app": there is no such file', "…") == 'load "app": there is no such file'


def test_a_viewer_is_told_no_quoted_word_wherever_it_is() -> None:
    error = {"code": "boot_failed", "message": f"could not boot: {quoted('hunter2')}"}
    told = public({"operations": [{"error": error, "timeline": [{"message": error["message"]}]}], "pids": [1]})
    assert told["operations"][0]["error"] == {"code": "boot_failed", "message": f"could not boot: {WITHHELD}"}
    assert "hunter2" not in str(told)
    assert told["pids"] == [1]
