"""Claims about the formats of the access log (http/access_format.py): which there are, and what is said of others."""

from __future__ import annotations

import pytest

from srvd.http.access_format import ATOMS, explain_problem, pieces_of


def test_every_documented_atom_is_known() -> None:
    for atom in ATOMS:
        assert explain_problem(f"%({atom})s") == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%(x)s", "there is no atom %(x)s"),
        ("%(h)", "is no atom"),
        ("%(h)-15s", "is no atom"),
        ("%h", "is no atom"),
        ("%", "is no atom"),
        ("%({x}z)s", "there is no atom"),
        ("%({}i)s", "there is no atom"),
        ("%(h)s\n", "one line"),
    ],
)
def test_what_is_no_format_is_explained(text: str, said: str) -> None:
    assert said in explain_problem(text)
    with pytest.raises(ValueError, match=r"atom|line"):
        pieces_of(text)


def test_a_conversion_to_a_number_is_that_to_a_text() -> None:
    assert pieces_of("%(D)d us %({x-id}i)s") == pieces_of("%(D)s us %({x-id}i)s")
