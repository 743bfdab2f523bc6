"""The one tree of errors: each class carries its wire code and the exit code that `srvctl` or `srvd` ends with.

Has no messages: the code that raises writes the sentence (verb, object, cause, what happens next).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

__all__ = ["CODES", "EXIT", "SrvdError", "from_wire"]


class EXIT:
    """Exit codes of `srvctl` and `srvd`; the reference page is generated from `MEANINGS`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_READY = 3
    NOT_FOUND = 4
    CHANGED = 10
    SOURCE = 65
    NO_DAEMON = 69
    BUG = 70
    SYSTEM = 71
    EXISTS = 73
    BUSY = 75
    PROTOCOL = 76
    PERMISSION = 77
    CONFIG = 78
    WAITED = 124
    INTERRUPTED = 130

    MEANINGS: ClassVar[tuple[tuple[str, int, str], ...]] = (
        ("srvctl", DONE, "done"),
        ("srvctl", FAILED, "failed; the former state is still in force (also: the system refused a port or a file)"),
        ("srvctl", USAGE, "the command line or an argument is wrong"),
        ("srvctl", NOT_READY, "not running, not ready or degraded (status)"),
        ("srvctl", NOT_FOUND, "no such pool, worker or operation"),
        ("srvctl", CHANGED, "failed, and the state has changed; the message says how"),
        ("srvctl", NO_DAEMON, "no daemon answers on the control socket"),
        ("srvctl", BUG, "a bug in srvd; please report it"),
        ("srvctl", BUSY, "busy; try again"),
        ("srvctl", PROTOCOL, "the daemon and srvctl do not understand each other"),
        ("srvctl", PERMISSION, "your user has no role for this"),
        ("srvctl", CONFIG, "the configuration is wrong; nothing was changed"),
        ("srvctl", WAITED, "--wait expired; the operation continues"),
        ("srvctl", INTERRUPTED, "interrupted; the operation goes on"),
        ("srvd", DONE, "asked to stop, and stopped"),
        ("srvd", FAILED, "the application never came up; import: srvd cannot run this"),
        ("srvd", USAGE, "the command line is wrong"),
        (
            "srvd",
            CHANGED,
            "start --daemonize: the daemon runs, but not all workers serve; import: the report has something to do",
        ),
        ("srvd", SOURCE, "import: the source cannot be read"),
        ("srvd", BUG, "a bug in srvd; please report it"),
        ("srvd", SYSTEM, "the system refused something srvd cannot do without (a port, a socket, a lock)"),
        ("srvd", EXISTS, "import: a file that would be written exists"),
        ("srvd", CONFIG, "the configuration is wrong; nothing was started"),
    )


class SrvdError(Exception):
    """The root of all errors: a sentence for people, a code for programs.

    hint: what to try.
    detail: facts for programs, such as "traceback" and "step".
    retryable: the same request may succeed later without any change.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = EXIT.BUG
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", detail: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail: dict[str, object] = dict(detail or {})

    def to_wire(self) -> dict[str, object]:
        """Returns the error as it is sent: a map of code, message, hint, retryable, detail."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "detail": self.detail,
        }


class InternalError(SrvdError):
    code = "internal"


class BadFrame(SrvdError):
    code = "bad_frame"
    exit_code = EXIT.PROTOCOL


class ProtocolMismatch(SrvdError):
    code = "protocol_mismatch"
    exit_code = EXIT.PROTOCOL


class BadArgs(SrvdError):
    code = "bad_args"
    exit_code = EXIT.USAGE


class UnknownMethod(SrvdError):
    code = "unknown_method"
    exit_code = EXIT.USAGE


class PermissionRefused(SrvdError):
    code = "permission"
    exit_code = EXIT.PERMISSION


class NoSuchPool(SrvdError):
    code = "no_such_pool"
    exit_code = EXIT.NOT_FOUND


class NoSuchWorker(SrvdError):
    code = "no_such_worker"
    exit_code = EXIT.NOT_FOUND


class NoSuchOperation(SrvdError):
    code = "no_such_operation"
    exit_code = EXIT.NOT_FOUND


class Conflict(SrvdError):
    code = "conflict"
    exit_code = EXIT.FAILED


class Busy(SrvdError):
    code = "busy"
    exit_code = EXIT.BUSY
    retryable = True


class Deadline(SrvdError):
    code = "deadline"
    exit_code = EXIT.WAITED


class Cancelled(SrvdError):
    code = "cancelled"
    exit_code = EXIT.FAILED


class LoadFailed(SrvdError):
    code = "load_failed"
    exit_code = EXIT.FAILED


class BootFailed(SrvdError):
    code = "boot_failed"
    exit_code = EXIT.FAILED


class HealthFailed(SrvdError):
    code = "health_failed"
    exit_code = EXIT.FAILED


class Crashing(SrvdError):
    code = "crashing"
    exit_code = EXIT.FAILED


class RolledBack(SrvdError):
    code = "rolled_back"
    exit_code = EXIT.FAILED


class Partial(SrvdError):
    code = "partial"
    exit_code = EXIT.CHANGED


class ConfigInvalid(SrvdError):
    code = "config_invalid"
    exit_code = EXIT.CONFIG


class Unsupported(SrvdError):
    code = "unsupported"
    exit_code = EXIT.FAILED


class ShuttingDown(SrvdError):
    code = "shutting_down"
    exit_code = EXIT.FAILED


class NoDaemon(SrvdError):
    """No daemon answers. Raised by the client only, never sent."""

    code = "no_daemon"
    exit_code = EXIT.NO_DAEMON
    retryable = True


class SystemRefused(SrvdError):
    """The kernel refused something that the daemon cannot start without (a port, a lock, a directory)."""

    code = "system"
    exit_code = EXIT.SYSTEM


CODES: dict[str, type[SrvdError]] = {
    cls.code: cls
    for cls in (
        InternalError, BadFrame, ProtocolMismatch, BadArgs, UnknownMethod, PermissionRefused, NoSuchPool, NoSuchWorker,
        NoSuchOperation,
        Conflict, Busy, Deadline, Cancelled, LoadFailed, BootFailed, HealthFailed, Crashing, RolledBack,
        Partial, ConfigInvalid, Unsupported, ShuttingDown, NoDaemon, SystemRefused,
    )
}  # fmt: skip


def from_wire(error: Mapping[str, object]) -> SrvdError:
    """Returns the error that a peer's map describes; an unknown code becomes an `InternalError` that names it."""
    code = str(error.get("code", "internal"))
    detail = error.get("detail")
    message = str(error.get("message", "no message"))
    return CODES.get(code, InternalError)(
        message if code in CODES else f"{message} (code {code})",
        hint=str(error.get("hint", "")),
        detail=detail if isinstance(detail, dict) else None,
    )
