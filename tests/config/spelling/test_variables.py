"""Claims about `srvd.config.spelling.variables`: references to the environment in the values of a file."""

from __future__ import annotations

from typing import Any

import pytest

from srvd.config.spelling.variables import Unexpandable, expand

ENVIRON = {"PORT": "5001", "EMPTY": "", "HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("value", "expanded", "origins"),
    [
        ("plain $PORT {x}", "plain $PORT {x}", ()),
        ("${PORT}", "5001", ("environment PORT",)),
        ("${EMPTY}", "", ("environment EMPTY",)),
        ("${EMPTY:-x}", "x", ("default of EMPTY",)),
        ("${ABSENT:-}", "", ("default of ABSENT",)),
        ("${HOST}:${PORT:-80}${PORT}", "10.0.0.1:50015001", ("environment HOST", "environment PORT")),
        ("$${PORT}", "${PORT}", ()),
        (["a", "${PORT}", 7], ["a", "5001", 7], ("environment PORT",)),
        ({"A": "${ABSENT:-b}", "B": ["${PORT}"]}, {"A": "b", "B": ["5001"]}, ("default of ABSENT", "environment PORT")),
        (8, 8, ()),
    ],
)
def test_references_are_replaced_wherever_texts_are(value: Any, expanded: Any, origins: tuple[str, ...]) -> None:
    assert expand(value, ENVIRON) == (expanded, origins)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${ABSENT}", "the environment has no ABSENT"),
        ("${PORT", "written"),
        ("${}", "written"),
        ("${9}", "written"),
        ("${PORT:?no}", "written"),
        ("${PORT-80}", "written"),
    ],
)
def test_what_has_no_value_is_refused(text: str, words: str) -> None:
    with pytest.raises(Unexpandable, match=words):
        expand(["x", text], ENVIRON)
