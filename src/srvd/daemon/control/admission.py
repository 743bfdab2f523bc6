"""Limits how many peers are connected, how fast connections are accepted, and how often the log says so.

Counts only: `server.py` refuses. Pure.
"""

from __future__ import annotations

from srvd.daemon.control.limits import Limits
from srvd.daemon.control.peers import Peer
from srvd.wire.commands import ADMIN

__all__ = ["ConnectionSlots", "LogLimiter", "TokenBucket"]


class ConnectionSlots:
    """Slots for connections, a limited number for each uid, and a few that are reserved for admins.

    Slots are taken at a limited rate, but by admins. A peer without a role gets none.
    """

    __slots__ = ("_limits", "_of_uid", "_ordinary", "_pace", "_reserved")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._pace = TokenBucket(limits.accept_rate, limits.accept_burst, now)
        self._of_uid: dict[int, int] = {}
        self._ordinary = 0
        self._reserved = 0

    def take(self, peer: Peer, now: float) -> str:
        """Takes a slot for the peer. Returns its kind, which `free` wants back; "" when it gets none now."""
        if not peer.role or (peer.role != ADMIN and self._pace.pass_one(now)):
            return ""
        limits, taken = self._limits, self._of_uid.get(peer.uid, 0)
        if self._ordinary < limits.connections - limits.reserved and taken < limits.per_uid:
            self._ordinary += 1
            self._of_uid[peer.uid] = taken + 1
            return "ordinary"
        if peer.role == ADMIN and self._reserved < limits.reserved:
            self._reserved += 1
            return "reserved"
        return ""

    def free(self, peer: Peer, kind: str) -> None:
        if kind == "reserved":
            self._reserved -= 1
            return
        self._ordinary -= 1
        left = self._of_uid[peer.uid] - 1
        if left:
            self._of_uid[peer.uid] = left
        else:
            del self._of_uid[peer.uid]


class TokenBucket:
    """A token bucket: `burst` at once, then `rate` a second."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def pass_one(self, now: float) -> float:
        """Returns 0.0 if one more may pass, else the seconds until a quarter of a burst may."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return self._burst / 4 / self._rate


class LogLimiter:
    """Allows one line of a kind and uid each minute, so that a peer cannot fill the log."""

    __slots__ = ("_last",)

    MOST_KINDS = 256
    EVERY = 60.0

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], float] = {}

    def may(self, kind: str, uid: int, now: float) -> bool:
        last = self._last.get((kind, uid))
        if last is not None and now - last < self.EVERY:
            return False
        if len(self._last) >= self.MOST_KINDS:
            self._last.clear()
        self._last[kind, uid] = now
        return True
