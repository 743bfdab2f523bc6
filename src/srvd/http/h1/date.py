"""The Server and Date lines of a response, made once a second at most.

Reads no clock: both times are handed in. Pure.
"""

from __future__ import annotations

import time

__all__ = ["MONTHS", "Stamp", "date"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Stamp:
    """`text` is right until the monotonic clock shows `until`."""

    __slots__ = ("text", "until")

    def __init__(self) -> None:
        self.text = b""
        self.until = 0.0

    def renew(self, now: float, wall: float) -> None:
        """Write the lines for `wall` (Unix seconds); they hold until its next second begins, told in `now`'s clock."""
        self.text = f"Server: srvd\r\nDate: {date(wall)}\r\n".encode("ascii")
        self.until = now + 1.0 - wall % 1.0


def date(wall: float) -> str:
    """IMF-fixdate (RFC 9110 section 5.6.7); strftime would follow the locale."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(wall)
    return f"{_DAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{second:02} GMT"
