"""The Server and Date lines of responses, by the clock of this machine.

Makes no line (`http/h1/date.py`) and no response.
"""

from __future__ import annotations

import time

from srvd.http.h1.date import Stamp

__all__ = ["ClockStamp"]


class ClockStamp(Stamp):
    __slots__ = ()

    def now(self) -> bytes:
        """Returns the lines of a response that is made now."""
        now = time.monotonic()
        if now >= self.until:
            self.renew(now, time.time())
        return self.text
