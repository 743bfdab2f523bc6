"""The numbers of the failure policy, as tables: when the next attempt is made, what counts, what a death is called."""

from __future__ import annotations

import pytest

from srvd.core import backoff
from srvd.core.model import Cause, Death, ExitReason, Headroom, Phase, PoolSpec, Strategy
from srvd.core.operations.rollout import choose
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Backoff
from srvd.core.state.workers import Worker
from srvd.ids import WorkerId

GIB = 1 << 30


def worker(ready_at: float | None = None, reason: str = "", phase: Phase = Phase.SERVING) -> Worker:
    made = Worker(WorkerId("web", 1, 1), 100.0, 160.0)
    made.ready_at, made.exit_reason, made.phase = ready_at, ExitReason(reason), phase
    return made


# -- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strikes", "seconds"),
    [(0, 0.0), (1, 0.0), (2, 0.1), (3, 0.2), (4, 0.4), (5, 0.8), (6, 1.6), (7, 3.2), (8, 6.4), (9, 12.8), (10, 25.6),
     (11, 30.0), (12, 30.0), (100, 30.0), (100_000, 30.0)],
)  # fmt: skip
def test_the_first_failure_is_not_waited_after_and_then_the_wait_doubles_up_to_thirty_seconds(
    strikes: int, seconds: float
) -> None:
    waits = [backoff.delay(strikes, seed) for seed in range(200)]
    assert min(waits) >= seconds * 0.8 - 1e-9
    assert max(waits) <= seconds * 1.2 + 1e-9


def test_the_jitter_spreads_pools_and_replays() -> None:
    waits = [backoff.delay(5, seed) for seed in range(100)]
    assert len(set(waits)) > 90
    assert max(waits) - min(waits) > 0.8 * 0.35
    assert waits == [backoff.delay(5, seed) for seed in range(100)]


def test_a_strike_sets_the_wait_and_says_why() -> None:
    counter = Backoff()
    backoff.strike(counter, 10.0, 10.1, 1, "it could not boot")
    assert (counter.strikes, counter.last, counter.until, counter.reason) == (1, 10.1, -NEVER, "it could not boot")
    backoff.strike(counter, 10.1, 10.2, 1, "again")
    assert counter.strikes == 2
    assert counter.until == 10.2 + backoff.delay(2, 1)
    counter.clear()
    assert (counter.strikes, counter.until, counter.reason) == (0, -NEVER, "")


@pytest.mark.parametrize(
    ("asked", "died", "strikes"),
    [
        (9.9, 10.2, 3),  # asked for before the last strike fell: it belongs to it
        (10.0, 10.2, 4),  # asked for because of it
        (10.0, 80.0, 4),  # seventy seconds of booting are no minute of health
        (69.9, 70.5, 4),
        (70.0, 70.5, 1),  # a minute in which nobody was needed
        (9000.0, 9000.1, 1),
    ],
)
def test_strikes_count_attempts_and_a_minute_of_health_begins_anew(asked: float, died: float, strikes: int) -> None:
    counter = Backoff()
    counter.strikes, counter.last = 3, 10.0
    backoff.strike(counter, asked, died, 1, "")
    assert counter.strikes == strikes


def test_a_burst_of_refused_forks_is_one_refusal() -> None:
    counter = Backoff()
    for _ in range(8):
        backoff.refusal(counter, 10.0, 1, "EAGAIN")
    assert (counter.refusals, counter.strikes) == (1, 0)
    assert counter.until == 10.0 + backoff.delay(2, 1)
    backoff.refusal(counter, counter.until, 2, "EAGAIN")
    assert counter.refusals == 2


def test_refused_forks_are_given_up_after_some_twelve_seconds() -> None:
    for seed in range(20):
        counter, now = Backoff(), 0.0
        while not backoff.is_hopeless(counter):
            backoff.refusal(counter, now, seed, "EAGAIN")
            last, now = now, counter.until
        assert 0.8 * 12.7 - 0.01 <= last <= 1.2 * 12.7 + 0.01


@pytest.mark.parametrize(("strikes", "hopeless", "crashing"), [(0, 0, 0), (2, 0, 0), (3, 1, 0), (4, 1, 0), (5, 1, 1)])
def test_three_strikes_end_an_order_and_five_are_a_crash_loop(strikes: int, hopeless: bool, crashing: bool) -> None:
    counter = Backoff()
    counter.strikes = strikes
    assert backoff.is_hopeless(counter) == hopeless
    assert backoff.is_crashing(counter) == crashing


def test_who_has_no_strike_is_never_forgiven_and_needs_not_be() -> None:
    counter = Backoff()
    assert backoff.forgiven_at(counter) == NEVER
    backoff.strike(counter, 10.0, 11.0, 1, "")
    assert backoff.forgiven_at(counter) == 11.0 + backoff.FORGIVEN_AFTER


@pytest.mark.parametrize(("ready_at", "now", "strike"), [(None, 500.0, True), (10.0, 10.9, True), (10.0, 11.0, False)])
def test_a_death_before_a_second_of_readiness_is_a_strike(ready_at: float | None, now: float, strike: bool) -> None:
    assert backoff.is_strike(worker(ready_at), now) is strike


# -- what ---------------------------------------------------------------------------------------------------------

KILLED = Death(signal=9)
CLEAN = Death(exit_code=0)
FAILED = Death(exit_code=3)


@pytest.mark.parametrize(
    ("ready", "reason", "phase", "death", "cause"),
    [
        # nobody asked for it
        (False, "", Phase.BOOTING, CLEAN, "boot_failed"),  # an exit code before READY means nothing
        (False, "", Phase.BOOTING, FAILED, "boot_failed"),
        (False, "", Phase.BOOTING, KILLED, "boot_failed"),
        (False, "", Phase.KILLED, KILLED, "boot_failed"),  # it said so itself
        (False, "", Phase.BOOTING, Death(signal=9, out_of_memory=True), "out_of_memory"),
        (True, "", Phase.SERVING, CLEAN, "exited"),
        (True, "", Phase.SERVING, FAILED, "exited"),
        (True, "", Phase.STANDBY, Death(signal=11), "signal"),
        (True, "", Phase.SERVING, KILLED, "signal"),
        (True, "", Phase.SERVING, Death(signal=9, out_of_memory=True), "out_of_memory"),
        # it was late
        (False, "boot_timeout", Phase.KILLED, KILLED, "boot_timeout"),
        (True, "health_timeout", Phase.KILLED, KILLED, "health_timeout"),
        (True, "drain_timeout", Phase.KILLED, KILLED, "drain_timeout"),
        (True, "overdue", Phase.KILLED, KILLED, "request_timeout"),
        (True, "silent", Phase.KILLED, KILLED, "silent"),
        (True, "silent", Phase.DRAINING, CLEAN, "silent"),
        (True, "misfit", Phase.KILLED, KILLED, "misfit"),
        # it was told to leave
        (True, "scaled down", Phase.DRAINING, CLEAN, "retired"),
        (True, "replaced", Phase.DRAINING, CLEAN, "retired"),
        (False, "scaled down", Phase.KILLED, KILLED, "retired"),
        (True, "recycle", Phase.DRAINING, CLEAN, "recycled"),
        (True, "worn", Phase.DRAINING, CLEAN, "recycled"),
        (True, "replaced", Phase.DRAINING, FAILED, "died_leaving"),
        (True, "recycle", Phase.DRAINING, Death(signal=11), "died_leaving"),
        (True, "replaced", Phase.DRAINING, Death(signal=9, out_of_memory=True), "out_of_memory"),
    ],
)
def test_a_death_has_one_cause(ready: bool, reason: str, phase: Phase, death: Death, cause: str) -> None:
    dead = worker(100.5 if ready else None, reason, phase)
    assert backoff.cause(dead, death) is Cause(cause)


@pytest.mark.parametrize(
    ("reason", "phase", "death", "said"),
    [
        ("", Phase.SERVING, KILLED, "died by itself; killed by signal 9 (SIGKILL)"),
        ("", Phase.SERVING, Death(), "died by itself; ended in an unknown way"),
        ("scaled down", Phase.DRAINING, CLEAN, "was told to leave (scaled down); exited with code 0"),
        ("overdue", Phase.KILLED, KILLED, "was stuck in a request; killed by signal 9 (SIGKILL)"),
        ("silent", Phase.DRAINING, CLEAN, "did not answer while clients waited; exited with code 0"),
        ("replaced", Phase.DRAINING, FAILED, "died while leaving (replaced); exited with code 3"),
        ("recycle", Phase.DRAINING, CLEAN, "was replaced as ordered; exited with code 0"),
    ],
)
def test_a_death_is_told_in_words(reason: str, phase: Phase, death: Death, said: str) -> None:
    assert backoff.summary(worker(100.5, reason, phase), death) == said


# -- how ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("available", "each", "workers", "strategy"),
    [
        (0, 0, 8, Strategy.BLUE_GREEN),  # nothing is known
        (GIB, 0, 8, Strategy.BLUE_GREEN),
        (0, GIB, 8, Strategy.BLUE_GREEN),
        (10 * GIB, GIB, 8, Strategy.BLUE_GREEN),  # exactly four fifths
        (10 * GIB - 1, GIB, 8, Strategy.ROLLING),
        (10 * GIB, GIB, 9, Strategy.ROLLING),
        (1, GIB, 0, Strategy.BLUE_GREEN),  # a paused pool needs nothing
    ],
)
def test_a_reload_is_blue_green_while_a_second_set_fits_into_four_fifths_of_the_free_memory(
    available: int, each: int, workers: int, strategy: Strategy
) -> None:
    assert choose(PoolSpec("web", workers=workers), workers, Headroom(available, each)) is strategy


@pytest.mark.parametrize("wanted", [Strategy.BLUE_GREEN, Strategy.ROLLING])
def test_a_strategy_that_was_set_is_taken_whatever_the_memory(wanted: Strategy) -> None:
    for headroom in (Headroom(), Headroom(1, GIB), Headroom(100 * GIB, 1)):
        assert choose(PoolSpec("web", strategy=wanted), 8, headroom) is wanted
