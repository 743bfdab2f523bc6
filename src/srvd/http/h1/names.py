"""The CGI names of header fields (RFC 3875 section 4.1.18), made once for each spelling that is seen.

No values are looked at here. Pure, but for the bounded memory of names.
"""

from __future__ import annotations

__all__ = ["KEYS", "environ_key"]

KEYS: dict[bytes, str] = {}
"""Field names as received → environ keys. Read by the hot path, grown by `environ_key`."""

_MOST_KEYS = 1024
_LONGEST_NAME = 64
_PLAIN = {"CONTENT_TYPE", "CONTENT_LENGTH"}

# Two known attacks: a name with an underscore collides with one with a hyphen (X_User and X-User are both HTTP_X_USER),
# and "Proxy" becomes HTTP_PROXY, which libraries take for their outgoing proxy.
_DROPPED = {"PROXY"}


def environ_key(name: bytes) -> str | None:
    """The key under which the application finds the field `name`; None if the application must not see it."""
    if b"_" in name:
        return None
    text = name.decode("latin-1").upper().replace("-", "_")
    if text in _DROPPED:
        return None
    key = text if text in _PLAIN else f"HTTP_{text}"
    if len(KEYS) < _MOST_KEYS and len(name) <= _LONGEST_NAME:
        KEYS[name] = key
    return key


for _name in (
    b"Accept", b"Accept-Encoding", b"Accept-Language", b"Authorization", b"Cache-Control", b"Connection",
    b"Content-Length", b"Content-Type", b"Cookie", b"Expect", b"Host", b"Origin", b"Referer", b"Transfer-Encoding",
    b"Upgrade", b"User-Agent", b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-Request-Id",
):  # fmt: skip
    environ_key(_name)
    environ_key(_name.lower())
