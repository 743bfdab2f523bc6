"""The error of a source that cannot be imported.

Has no messages: the code that raises writes them.
"""

from __future__ import annotations

from typing import ClassVar

from srvd.errors import EXIT, ConfigInvalid

__all__ = ["UnreadableSource"]


class UnreadableSource(ConfigInvalid):
    exit_code: ClassVar[int] = EXIT.SOURCE
