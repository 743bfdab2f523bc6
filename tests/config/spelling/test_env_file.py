"""Claims about `srvd.config.spelling.env_file`: what a file of variables says, as those of systemd and `.env` do."""

from __future__ import annotations

import pytest

from srvd.config.spelling.env_file import parse

FILE = """# of the site
export MODE=prod
; and more
SECRET = "a \\"b\\" $c"
PLAIN='it is "so"'
EMPTY=
URL=postgres://u:p@h/db?a=b#c
  INDENTED=1
"""


def test_each_line_is_a_variable() -> None:
    assert parse(FILE) == {
        "MODE": "prod",
        "SECRET": 'a "b" $c',
        "PLAIN": 'it is "so"',
        "EMPTY": "",
        "URL": "postgres://u:p@h/db?a=b#c",
        "INDENTED": "1",
    }


@pytest.mark.parametrize("line", ["hunter2", "9A=hunter2", "A B=hunter2", "=hunter2"])
def test_a_line_that_is_none_is_named_and_not_shown(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2 is not NAME=VALUE$"):
        parse(f"A=b\n{line}\n")
