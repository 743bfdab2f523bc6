"""The failure policy: how a death is named, when the next attempt may be made, when a pool counts as crashing.

Decides nothing about which worker is forked. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from srvd.core.model import Cause, Death, ExitReason, Phase
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Backoff
from srvd.core.state.workers import Worker
from srvd.quoting import quoted

HEALTHY_AFTER = 1.0
"""Seconds of readiness after which a death is repaired at once and is no strike."""

FORGIVEN_AFTER = 60.0
"""Seconds without a strike after which the count begins anew."""

CRASHING_STRIKES = 5
RETURN_STRIKES = 3
"""Strikes while a new generation bakes that switch back to the former one, and that end an order for new workers."""

REFUSALS = 8
"""Rounds of refused forks – some 12 s – after which an order that needs a process is given up."""

NAMED = 8
"""Processes that a sentence names."""

SENTENCE = 500
"""Characters that a sentence takes over of what an application said; all of it is in the traceback or in the log."""

_FATAL = re.compile(r"^Fatal Python error: .*$", re.MULTILINE)
_CALL = re.compile(r'^  File "([^"]*)", line (\d+) in (\S+)', re.MULTILINE)

_SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL",
    11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS",
}  # fmt: skip
"""Those that end processes, as x86 and ARM number them (signal(7)); the module of that name is none of the core's."""

BASE = 0.1
CAP = 30.0
JITTER = 0.2


def delay(strikes: int, seed: int) -> float:
    """Seconds to wait after so many strikes: none after the first, then 0.1·2ⁿ ± 20 % up to 30 s.

    The jitter is a fixed function of `seed` (a serial): pools of one host spread out, and a transcript replays.
    """
    if strikes <= 1:
        return 0.0
    spread = ((seed * 2654435761) % 1024) / 1023 * 2 - 1  # Knuth's multiplicative hash, as -1 … 1
    return float(min(CAP, BASE * 2 ** min(strikes - 2, 20)) * (1 + JITTER * spread))


def strike(backoff: Backoff, asked_at: float, now: float, seed: int, reason: str) -> None:
    """Counts a failure; workers asked for before the last strike fell belong to it and do not count again."""
    # Not the time since: an attempt that takes its whole boot_timeout to fail is no minute of health.
    if asked_at - backoff.last >= FORGIVEN_AFTER:
        backoff.strikes = 0
    elif asked_at < backoff.last:
        return
    backoff.strikes += 1
    backoff.last = now
    backoff.reason = reason
    wait = delay(backoff.strikes, seed)
    backoff.until = now + wait if wait > 0 else -NEVER


def refusal(backoff: Backoff, now: float, seed: int, reason: str) -> None:
    """Counts a round of refused forks: the system is short of something, which says nothing about the application."""
    if now < backoff.until:
        return  # of the same round
    backoff.refusals += 1
    backoff.reason = reason
    backoff.until = now + delay(backoff.refusals + 1, seed)


def forgiven_at(backoff: Backoff) -> float:
    """When a pool that stays well begins anew."""
    return backoff.last + FORGIVEN_AFTER if backoff.strikes else NEVER


def is_hopeless(backoff: Backoff) -> bool:
    """May an order that waits for new workers be given up?"""
    return backoff.strikes >= RETURN_STRIKES or backoff.refusals >= REFUSALS


def is_crashing(backoff: Backoff) -> bool:
    return backoff.strikes >= CRASHING_STRIKES


def is_strike(worker: Worker, now: float) -> bool:
    """An unasked death before a second of readiness."""
    return worker.ready_at is None or now - worker.ready_at < HEALTHY_AFTER


def in_short(text: str) -> str:
    """The text, cut for a sentence: an exception's message may be a page, or chosen by the client of the request."""
    return text if len(text) <= SENTENCE else f"{text[: SENTENCE - 1]}…"


def last_line(text: str) -> str:
    """What mostly names the cause, after a colon and in quotes: the last line, or, of a crash, its first line and the
    place.
    """
    fatal = _FATAL.search(text)
    if fatal is not None:  # what faulthandler writes last is a list of modules
        call = _CALL.search(text, fatal.end())
        place = f" ({call[1]}:{call[2]} in {call[3]})" if call else ""
        return f": {quoted(in_short(fatal[0] + place))}"
    lines = text.strip().splitlines()
    return f": {quoted(in_short(lines[-1].strip()))}" if lines else ""


def left_behind(name: str, processes: Sequence[str]) -> str:
    """A sentence about processes that outlive the one that started them."""
    count = f"{len(processes)} process{'es' if len(processes) > 1 else ''}"
    more = f" and {len(processes) - NAMED} more" if len(processes) > NAMED else ""
    return f"{name} left {count} behind: {', '.join(processes[:NAMED])}{more}; a stop of srvd ends them"


_CAUSES = {
    ExitReason.BOOT_TIMEOUT: Cause.BOOT_TIMEOUT,
    ExitReason.HEALTH_TIMEOUT: Cause.HEALTH_TIMEOUT,
    ExitReason.HEALTH_FAILED: Cause.HEALTH_FAILED,
    ExitReason.DRAIN_TIMEOUT: Cause.DRAIN_TIMEOUT,
    ExitReason.OVERDUE: Cause.REQUEST_TIMEOUT,
    ExitReason.SILENT: Cause.SILENT,
    ExitReason.MISFIT: Cause.MISFIT,
}
"""Exit reasons of workers that do not what they should: however the process ended, that is its cause."""

_ENDS = {
    Cause.BOOT_TIMEOUT: "was not ready in time",
    Cause.HEALTH_TIMEOUT: "did not answer the health probe in time",
    Cause.HEALTH_FAILED: "did not pass the health probe",
    Cause.REQUEST_TIMEOUT: "was stuck in a request",
    Cause.SILENT: "did not answer while clients waited",
    Cause.MISFIT: "broke the protocol of its link",
    Cause.OUT_OF_MEMORY: "ran out of memory",
    Cause.BOOT_FAILED: "could not boot",
    Cause.ABANDONED: "was ended with its generation, which was given up",
    Cause.UNKNOWN: "is gone",
}


def cause(worker: Worker, death: Death) -> Cause:
    """One word for the death record."""
    reason = worker.exit_reason
    if reason in _CAUSES:
        return _CAUSES[reason]
    if death.out_of_memory:
        return Cause.OUT_OF_MEMORY
    if reason is not ExitReason.NONE:
        if death.exit_code != 0 and not death.unseen and worker.phase is not Phase.KILLED:
            return Cause.DIED_LEAVING
        if reason is ExitReason.ABANDONED:
            return Cause.ABANDONED
        return Cause.RECYCLED if reason in (ExitReason.EXPIRED, ExitReason.RECYCLE) else Cause.RETIRED
    if worker.ready_at is None:
        return Cause.BOOT_FAILED
    if death.unseen:
        return Cause.UNKNOWN
    return Cause.SIGNAL if death.signal is not None else Cause.EXITED


def summary(worker: Worker, death: Death) -> str:
    """How it ended, in a sentence without its subject."""
    ended = "ended unseen: the process that reaps it had died before" if death.unseen else "ended in an unknown way"
    if death.signal is not None:
        ended = f"killed by signal {death.signal}"
        if name := _SIGNALS.get(death.signal):
            ended += f" ({name})"
    elif death.exit_code is not None:
        ended = f"exited with code {death.exit_code}"
    return f"{_what(worker, cause(worker, death))}; {ended}"


def _what(worker: Worker, how: Cause) -> str:
    match how:
        case Cause.DRAIN_TIMEOUT if worker.finished:
            waits = "something that runs at its exit waits, maybe for a process"
            return f"had no requests any more, and did not end: {waits}"
        case Cause.DRAIN_TIMEOUT:
            return "did not finish its requests in time"
        case Cause.RECYCLED:
            return f"was replaced, {worker.expired}" if worker.expired else "was replaced as ordered"
        case Cause.RETIRED:
            return f"was told to leave ({worker.exit_reason.value})"
        case Cause.DIED_LEAVING:
            return f"died while leaving ({worker.exit_reason.value})"
    return _ENDS.get(how, "died by itself")
