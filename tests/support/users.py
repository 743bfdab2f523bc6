"""The user of the tests, by name where the machine has one for it. Containers often run as a number alone."""

from __future__ import annotations

import os
import pwd


def own_name(without: str) -> str:
    """The name of our own user; `without`, with `{uid}` filled in, if the machine has no name for it."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return without.format(uid=uid)
