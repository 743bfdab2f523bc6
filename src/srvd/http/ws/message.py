"""One message while its frames come in: inflated, checked and put together piece by piece.

Knows no frames, and neither does it know where a message ends: `reader.py` says so. Pure.
"""

from __future__ import annotations

from codecs import getincrementaldecoder

from srvd.http.ws.codes import CloseCode, Violation
from srvd.http.ws.deflate import Inflater
from srvd.http.ws.limits import Limits

__all__ = ["IncomingMessage"]

_decoder = getincrementaldecoder("utf-8")

_BYTES_A_FRAME = 32
"""So many bytes of a message allow for another frame beyond `Limits.fragments`."""


class IncomingMessage:
    """`begin_frame` for each frame, `add` for each part of its payload, then `finish`.

    The limits hold before something is kept. Text is checked as it comes (RFC 6455 section 8.1), so a client that sends
    what is no UTF-8 is told before it has sent the rest.
    """

    __slots__ = ("_check", "_content", "_frames", "_inflater", "_limits", "_received")

    def __init__(self, limits: Limits, is_text: bool, inflater: Inflater | None) -> None:
        self._limits = limits
        self._inflater = inflater  # None: the message is not compressed
        self._check = _decoder() if is_text else None
        self._content = bytearray()
        self._received = 0  # as announced by headers: before it is inflated
        self._frames = 0

    @property
    def inflated(self) -> int:
        """So many bytes did not come over the wire, but out of the inflater."""
        return 0 if self._inflater is None else len(self._content)

    def begin_frame(self, length: int) -> None:
        """Takes the next frame of the message. Raises `Violation`."""
        self._received += length
        self._frames += 1
        # What cannot be compressed gets longer; and a compressed frame of any length may come to nothing.
        slack = 0 if self._inflater is None else self._limits.message // 4 + 1024
        self._check_size(self._received - slack)
        if self._frames > self._limits.fragments + self._received // _BYTES_A_FRAME:
            raise Violation(CloseCode.POLICY_VIOLATION, "a message in too many fragments")

    def add(self, payload: bytes) -> None:
        """Takes a part of a frame's payload, without its mask. Raises `Violation`, `UnicodeDecodeError`."""
        if self._inflater is None:
            self._keep(payload)
            return
        for piece in self._inflater.inflate(payload):
            self._keep(piece)

    def finish(self) -> str | bytes:
        """Returns the message: all of it is here. Raises as `add`."""
        if self._inflater is not None:
            for piece in self._inflater.finish():
                self._keep(piece)
        return bytes(self._content) if self._check is None else self._content.decode()

    def _keep(self, piece: bytes) -> None:
        self._check_size(len(self._content) + len(piece))
        if self._check is not None:
            self._check.decode(piece)
        self._content += piece

    def _check_size(self, size: int) -> None:
        if size > self._limits.message:
            raise Violation(CloseCode.TOO_BIG, f"a message of more than {self._limits.message} bytes")
