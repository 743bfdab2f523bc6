"""What workers and zygotes report, entered into the facts: deaths become certificates and strikes.

Moves only the one it hears of; who takes its place is `reconcile.py`'s to say. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, probing, transitions, warming
from srvd.core.actions import KillWorker, Level
from srvd.core.certificates import certify, certify_zygote
from srvd.core.events import (
    ForkRefused,
    OfWorker,
    RequestOverdue,
    Word,
    WorkerAnswered,
    WorkerContinued,
    WorkerForked,
    WorkerGone,
    WorkerHeld,
    WorkerOutgrew,
    WorkerSaid,
    WorkerSilent,
    WorkerStopped,
    ZygoteFailed,
    ZygoteGone,
    ZygoteLoaded,
)
from srvd.core.lifecycle import Impulse, Stimulus
from srvd.core.model import Death, Fault, OpState, Phase, Stage
from srvd.core.operations import execute, reopen, rollout
from srvd.core.reports import adoption, replacement, stopped
from srvd.core.state.model import (
    NEVER,
    Certificate,
    Generation,
    House,
    Operation,
    Pool,
    Rollout,
    Turn,
    Worker,
    Zygote,
)

KILLED_FROM_OUTSIDE = 9
"""A SIGKILL we did not send and memory did not cause says nothing about the application."""


def _find(house: House, pool: str, number: int) -> tuple[Pool, Generation] | None:
    home = house.pools.get(pool)
    generation = home.generations.get(number) if home else None
    return (home, generation) if home and generation else None


def _rollout_of(house: House, generation: Generation) -> tuple[Operation, Rollout] | None:
    for op in house.open_operations:
        part = op.rollouts.get(generation.id.pool)
        if part is not None and part.generation == generation.id.number:
            return op, part
    return None


# -- workers ------------------------------------------------------------------------------------------------------


def of_worker(house: House, event: OfWorker, turn: Turn) -> None:
    """One report about one worker; a report about a worker that is gone already says nothing any more."""
    found = _find(house, event.worker.pool, event.worker.generation)
    worker = found[1].workers.get(event.worker.serial) if found else None
    if found is None or worker is None:
        return
    pool, generation = found
    match event:
        case WorkerForked():
            worker.pid = event.pid
            _forked(house, pool, generation, worker, turn)
        case ForkRefused():
            _refused(house, pool, generation, worker, backoff.in_short(event.reason), turn)
        case WorkerSaid():
            _said(house, pool, generation, worker, event, turn)
        case WorkerGone():
            _gone(house, pool, generation, worker, event.death, turn)
        case RequestOverdue():
            replacement.overdue(generation, worker, event, turn)
        case WorkerSilent():
            how = "is stopped by a signal" if event.stopped else "does not answer"
            replacement.stuck(worker, "silent", f"{how} while clients have waited for {event.seconds:.0f} s", turn)
        case WorkerAnswered():
            replacement.pardon(worker, turn)
        case WorkerStopped():
            stopped.stopped(worker, turn)
        case WorkerContinued():
            worker.wake_at = NEVER
        case WorkerHeld():
            stopped.held(worker, turn)
        case WorkerOutgrew():
            replacement.outgrew(pool, generation, worker, event, turn)


def _forked(house: House, pool: Pool, generation: Generation, worker: Worker, turn: Turn) -> None:
    cancelled = worker.phase is Phase.CANCELLED
    transitions.step(worker, Stimulus.FORKED, turn)
    found = _rollout_of(house, generation)
    if found is not None:
        found[1].refusals = 0
    if pool.breaker.refusals:
        pool.breaker.refusals = 0
        if not pool.breaker.strikes:
            pool.breaker.reason = ""  # what it told of is over
    worker.deadline = worker.asked + generation.spec.boot_timeout
    if cancelled:
        worker.deadline = turn.now + transitions.LAST_WORDS
        turn.do(KillWorker(worker.id))


def _refused(house: House, pool: Pool, generation: Generation, worker: Worker, reason: str, turn: Turn) -> None:
    cancelled = worker.phase is Phase.CANCELLED
    transitions.step(worker, Stimulus.REFUSED, turn)
    del generation.workers[worker.id.serial]
    if cancelled:
        return
    turn.note(Level.WARNING, "worker", f"worker {worker.id} was not forked: {reason}; trying again",
              ("worker", str(worker.id)))  # fmt: skip
    found = _rollout_of(house, generation)
    if generation.id.number == pool.active:
        backoff.refusal(pool.breaker, turn.now, worker.id.serial, f"workers cannot be forked: {reason}")
    elif generation.is_trial and found is not None and turn.now >= found[1].retry_at:  # before: of the same round
        part = found[1]
        part.refusals += 1
        part.retry_at = turn.now + backoff.delay(part.refusals + 1, worker.id.serial)
        if part.refusals >= backoff.REFUSALS:
            fault = Fault("boot_failed", f"workers of {generation.id} cannot be forked: {reason}")
            _trial_failed(house, generation, fault, turn)


def _said(house: House, pool: Pool, generation: Generation, worker: Worker, event: WorkerSaid, turn: Turn) -> None:
    fits = True
    match event.word:
        case Word.READY:
            fits = transitions.step(worker, Stimulus.READY, turn)
            if fits and worker.phase is Phase.STANDBY:
                worker.ready_at = turn.now
                turn.note(
                    Level.INFO, "worker", f"worker {worker.id} ready, pid {worker.pid}", ("worker", str(worker.id))
                )
        case Word.SERVING:
            fits = transitions.step(worker, Stimulus.CONFIRMED, turn)
        case Word.FAILED:
            fits = _cannot_boot(house, pool, generation, worker, event.text, turn)
        case Word.HEALTHY | Word.UNHEALTHY:
            probing.answered(generation, worker, event, turn)
        case Word.WORN:
            fits = transitions.step(worker, Stimulus.WORN, turn)
            if fits and worker.phase is Phase.SERVING and not worker.condemned:
                replacement.wears_out(pool, generation, worker, backoff.in_short(event.text), turn)
        case Word.REOPENED:
            worker.log_problem = backoff.in_short(event.text)  # also said unasked, when its log is lost or found again
            reopen.answered(house, str(worker.id), worker.log_problem)
        case Word.LEAVING:
            adoption.lead_out(generation, worker, turn)
        case Word.BYE:
            worker.finished = True
    if not fits:
        text = f"worker {worker.id} said {event.word.value} while {worker.phase.value}; killing it"
        turn.note(Level.ERROR, "worker", text, ("worker", str(worker.id)))
        wasted = backoff.is_strike(worker, turn.now)
        transitions.kill(worker, "misfit", turn)
        _lost(pool, generation, worker, "a worker broke the protocol of its link", turn, strike=wasted)


def _cannot_boot(house: House, pool: Pool, generation: Generation, worker: Worker, text: str, turn: Turn) -> bool:
    killed = worker.phase is Phase.KILLED  # said before the kill arrived
    if not transitions.step(worker, Stimulus.FAILED, turn):
        return False
    worker.failure = worker.failure or text
    if killed:
        return True
    worker.deadline = turn.now + transitions.LAST_WORDS
    turn.do(KillWorker(worker.id))
    if generation.is_trial:  # at once, or another canary would boot meanwhile
        fault = Fault("boot_failed", f"worker {worker.id} could not boot{backoff.last_line(text)}", traceback=text)
        _trial_failed(house, generation, fault, turn)
    _lost(pool, generation, worker, f"a new worker could not boot{backoff.last_line(text)}", turn, strike=True)
    return True


def _lost(pool: Pool, generation: Generation, worker: Worker, reason: str, turn: Turn, *, strike: bool) -> None:
    """The pool that it served has one worker less than it was wished, and nobody asked for that."""
    if generation.id.number != pool.active:
        return
    pool.restarts += 1
    if not strike:
        return
    before = pool.breaker.strikes
    backoff.strike(pool.breaker, worker.asked, turn.now, worker.id.serial, reason)
    if pool.breaker.strikes == backoff.CRASHING_STRIKES != before:
        text = f"pool {pool.name} is crashing: {pool.breaker.strikes} workers died before they were of use"
        turn.note(Level.ERROR, "pool", text, ("pool", pool.name))


def _worker_overdue(pool: Pool, generation: Generation, worker: Worker, turn: Turn) -> None:
    """The worker's deadline has passed. A zygote that has not forked by then is deaf and is replaced."""
    deaf = worker.phase in (Phase.ASKED, Phase.CANCELLED)
    late = worker.phase in (Phase.BOOTING, Phase.OPENING)
    transitions.overdue(worker, turn)
    if late and generation.is_trial:
        message = f"worker {worker.id} was not ready within {generation.spec.boot_timeout:g} s"
        transitions.doom(generation, Fault("boot_failed", message, "raise boot_timeout, or see where it waits"), turn)
    elif late:
        _lost(pool, generation, worker, "a new worker was not ready in time", turn, strike=True)
    if deaf and generation.zygote is Zygote.UP:
        text = f"the zygote of {generation.id} does not fork"
        turn.note(Level.ERROR, "generation", f"{text}; killing it")
        if generation.is_trial:
            generation.fault = generation.fault or Fault("boot_failed", text)
        transitions.zygote_overdue(generation, turn)


def _gone(house: House, pool: Pool, generation: Generation, worker: Worker, death: Death, turn: Turn) -> None:
    certificate = certify(pool, worker, death, turn)
    missed = worker.is_capacity
    accepted = worker.phase in (Phase.OPENING, Phase.SERVING)
    unasked = not worker.leaving or worker.leaving in ("boot_timeout", "health_timeout", "health_failed", "misfit")
    transitions.step(worker, Stimulus.EXITED, turn)
    del generation.workers[worker.id.serial]
    if unasked or certificate.cause == "died_leaving":
        text = f"worker {worker.id} {certificate.summary}"
        turn.note(Level.ERROR, "worker", text, ("worker", str(worker.id)), ("cause", certificate.cause))
    else:
        turn.note(Level.INFO, "worker", f"worker {worker.id} left ({certificate.summary})", ("worker", str(worker.id)))
    if death.behind:
        left = backoff.left_behind(f"worker {worker.id}", death.behind)
        turn.note(Level.WARNING, "worker", left, ("worker", str(worker.id)))
    if generation.is_trial and unasked and not accepted:
        _trial_lost(house, generation, worker, certificate, turn)
    elif missed:  # else its loss was counted when it was decided
        strike = backoff.is_strike(worker, turn.now)
        reason = f"a new worker {certificate.summary}{backoff.last_line(death.stderr)}"
        _lost(pool, generation, worker, reason, turn, strike=strike)
        by_itself = death.signal != KILLED_FROM_OUTSIDE or death.out_of_memory
        if pool.bake is not None and generation.id.number == pool.active and by_itself and not strike:
            pool.bake = pool.bake._replace(deaths=pool.bake.deaths + 1)


def _trial_lost(house: House, generation: Generation, worker: Worker, certificate: Certificate, turn: Turn) -> None:
    found = _rollout_of(house, generation)
    if found is None:
        return
    found[1].losses += 1
    proof = worker.failure or certificate.death.stacks or certificate.death.stderr
    is_canary = generation.stage in (Stage.PROBING, Stage.WARMING) and worker.id.serial == generation.canary
    if worker.ready_at is None or is_canary or generation.fault is not None:
        fault = generation.fault or Fault(
            "boot_failed", f"worker {worker.id} {certificate.summary}{backoff.last_line(proof)}"
        )
        _trial_failed(house, generation, fault._replace(traceback=proof), turn)
    elif found[1].losses >= rollout.LOSSES:
        message = f"{found[1].losses} workers of {generation.id} died in standby; the last {certificate.summary}"
        _trial_failed(house, generation, Fault("boot_failed", message, traceback=proof), turn)


# -- zygotes ------------------------------------------------------------------------------------------------------


def of_zygote(house: House, event: ZygoteLoaded | ZygoteFailed | ZygoteGone, turn: Turn) -> None:
    """One report about one zygote."""
    found = _find(house, event.generation.pool, event.generation.number)
    if found is None:
        return
    pool, generation = found
    match event:
        case ZygoteLoaded():
            _loaded(generation, event, turn)
        case ZygoteFailed():
            generation.zygote = Zygote.LEAVING
            generation.deadline = turn.now + transitions.LAST_WORDS
            fault = event.fault._replace(message=backoff.in_short(event.fault.message))
            _trial_failed(house, generation, fault, turn)
        case ZygoteGone():
            _zygote_gone(house, pool, generation, event, turn)


def _loaded(generation: Generation, event: ZygoteLoaded, turn: Turn) -> None:
    if generation.zygote is not Zygote.LOADING:  # it was late and is being killed
        return
    generation.zygote = Zygote.UP
    generation.deadline = NEVER
    generation.preloaded, generation.loaded, generation.folder = event.preloaded, event.at, event.folder
    generation.learns = event.preloaded and generation.learns
    how = "loaded" if event.preloaded else "ready to fork, not preloaded"
    where = f" from {event.folder}" if event.folder else ""
    turn.note(Level.INFO, "generation", f"generation {generation.id} {how}{where}", ("generation", str(generation.id)))
    for note in event.notes:
        turn.note(Level.WARNING, "generation", f"generation {generation.id}: {note}")
    if generation.stage is Stage.LOADING:
        transitions.shift(generation, Impulse.LOADED)


def _zygote_gone(house: House, pool: Pool, generation: Generation, event: ZygoteGone, turn: Turn) -> None:
    unasked = generation.zygote is not Zygote.LEAVING
    generation.zygote = Zygote.GONE
    generation.deadline = NEVER
    if unasked and not pool.removed:
        certify_zygote(pool, generation, event, turn)
    if event.behind:
        turn.note(Level.WARNING, "generation", backoff.left_behind(f"the zygote of {generation.id}", event.behind))
    for worker in list(generation.workers.values()):  # nobody will answer for these
        if worker.phase in (Phase.ASKED, Phase.CANCELLED):
            transitions.step(worker, Stimulus.REFUSED, turn)
            del generation.workers[worker.id.serial]
    if generation.is_trial:
        loads = generation.stage is Stage.LOADING
        what = "the application ended its process while it was loaded" if loads else "the zygote died"
        fault = generation.fault or Fault("load_failed", f"{what} ({event.cause})")
        _trial_failed(house, generation, fault._replace(traceback=fault.traceback or event.stderr), turn)
    elif generation.id.number == pool.active and not pool.removed:
        backoff.strike(pool.mender, turn.now, turn.now, generation.id.number, "its zygote died")
        text = f"the zygote of {generation.id} died ({event.cause}); its workers serve on, it is loaded anew"
        turn.note(Level.ERROR, "generation", text, ("generation", str(generation.id)))
    elif generation.id.number == pool.parked:
        turn.note(Level.WARNING, "generation", f"the parked zygote of {generation.id} died; no rollback to it")
        rollout.unpark(pool, turn)


def _generation_overdue(house: House, pool: Pool, generation: Generation, turn: Turn) -> None:
    """The generation's deadline has passed: to load, to answer the probe, to be kept, or to leave."""
    generation.deadline = NEVER
    if generation.zygote is Zygote.LOADING:
        limit = generation.spec.boot_timeout
        message = f"the application of {generation.id} was not loaded within {limit:g} s"
        generation.fault = Fault("load_failed", message, "raise boot_timeout, or see where it waits", "load", pool.name)
        turn.note(Level.ERROR, "generation", f"{message}; its stacks follow, then it is killed")
        transitions.zygote_overdue(generation, turn)
    elif generation.zygote is Zygote.LEAVING:
        transitions.zygote_overdue(generation, turn)
    elif generation.is_trial and generation.fault is not None:  # the proof does not come: the culprit does not die
        _trial_failed(house, generation, generation.fault, turn)
    elif generation.stage is Stage.PROBING:
        probing.overdue(generation, turn)
    elif generation.stage is Stage.WARMING:
        warming.overdue(generation, turn)
    elif generation.stage is Stage.PARKED:
        turn.note(Level.INFO, "generation", f"generation {generation.id} is no longer kept for a rollback")
        rollout.unpark(pool, turn)


def _trial_failed(house: House, generation: Generation, fault: Fault, turn: Turn) -> None:
    found = _rollout_of(house, generation)
    if found is None or not generation.is_trial:
        return
    steps = {Stage.LOADING: "load", Stage.BOOTING: "canary", Stage.PROBING: "probe", Stage.WARMING: "warm"}
    step = fault.step or steps.get(generation.stage, "stage")
    execute.fail(house, found[0], fault._replace(step=step, pool=generation.id.pool), turn)


# -- time ---------------------------------------------------------------------------------------------------------


def deadlines(house: House, pool: Pool, turn: Turn) -> None:
    """Whatever has passed of the pool's generations and workers by now."""
    now = turn.now
    for generation in list(pool.generations.values()):
        if generation.deadline <= now:
            _generation_overdue(house, pool, generation, turn)
        if generation.ask_at <= now:
            probing.ask_again(generation, turn)
        for worker in list(generation.workers.values()):
            if worker.wake_at <= now:
                stopped.wake(worker, turn)
            if worker.deadline <= now:
                _worker_overdue(pool, generation, worker, turn)


# -- what is left -------------------------------------------------------------------------------------------------


def sweep(house: House, pool: Pool, turn: Turn) -> None:
    """Ends generations that nobody is left of, and a removed pool with the last of them."""
    source = pool.source
    if pool.removed and source is not None and not source.workers:
        transitions.shift(source, Impulse.RETIRE)
        pool.active = None
    for generation in list(pool.generations.values()):
        if generation.stage not in (Stage.RETIRING, Stage.FAILED) or generation.workers:
            continue
        transitions.dismiss(generation, turn)
        if generation.zygote is Zygote.GONE:
            transitions.shift(generation, Impulse.EMPTIED)
            del pool.generations[generation.id.number]
    if pool.removed and not pool.generations:
        busy = any(pool.name in op.rollouts and op.state is not OpState.DONE for op in house.open_operations)
        if not busy:
            house.numbers[pool.name] = (pool.numbers, pool.serials)
            del house.pools[pool.name]
