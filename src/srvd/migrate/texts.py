"""What every translation makes of names and of variables.

Knows no server. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["instance_name", "without_secrets"]

_SECRET: Final = re.compile(r"SECRET|PASS|TOKEN|KEY|CREDENTIAL|DSN|PRIVATE", re.IGNORECASE)


def instance_name(text: str) -> str:
    """Returns the name of a daemon that is most like a text."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_0123456789")[:40] or "srvd"


def without_secrets(pairs: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Returns the variables that may be shown, and the names of those whose names look like secrets."""
    hidden = [name for name in pairs if _SECRET.search(name)]
    return {name: text for name, text in pairs.items() if name not in hidden}, hidden
