"""Close codes (RFC 6455 section 7.4 and the registry of IANA): which may travel, and the payload of a close frame.

Decides neither when a close frame is sent nor what follows it: `closing.py` does. Pure.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CloseCode", "Violation", "close_payload", "read_close"]


class CloseCode(IntEnum):
    """The codes that the protocol itself uses."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    NO_CODE = 1005  # told to the application for a close frame without a code; never sent
    ABNORMAL = 1006  # told to the application when the connection ends without a close frame; never sent
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009


_REGISTERED = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_LONGEST_REASON = 123  # a control frame has 125 bytes, two of which are the code


class Violation(Exception):
    """What the client sent breaks a rule. `code` and `why` go into the close frame that answers it."""

    def __init__(self, code: CloseCode, why: str) -> None:
        super().__init__(code, why)
        self.code = code
        self.why = why


def _travels(code: int) -> bool:
    """Whether a close frame may have the code: registered for that, or free for libraries and applications."""
    return code in _REGISTERED or 3000 <= code <= 4999


def read_close(payload: bytes) -> tuple[int, str]:
    """Returns code and reason of a close frame. Raises `Violation` (RFC 6455 sections 5.5.1 and 7.4)."""
    if not payload:
        return CloseCode.NO_CODE, ""
    if len(payload) == 1:
        raise Violation(CloseCode.PROTOCOL_ERROR, "a close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not _travels(code):
        raise Violation(CloseCode.PROTOCOL_ERROR, f"close code {code} must not be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise Violation(CloseCode.INVALID_DATA, "the reason of a close frame is not UTF-8") from None


def close_payload(code: int, reason: str) -> bytes:
    """Returns the payload of a close frame. Cuts a reason that is too long, at the end of a character.

    Raises `ValueError` for a code that must not be sent.
    """
    if not _travels(code):
        msg = f"{code} is no code that a close frame may have"
        raise ValueError(msg)
    text = reason.encode("utf-8", "replace")
    if len(text) > _LONGEST_REASON:
        text = text[:_LONGEST_REASON].decode("utf-8", "ignore").encode()
    return code.to_bytes(2, "big") + text
