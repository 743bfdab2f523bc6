"""Bugs that the core does not have: each is one change of its text that a tired person could make.

The random walk must find every one of them (`core/test_walk.py`); what it cannot find, it does not test. Not a list
of all that may go wrong: a new claim of `claims.py` comes with a mutant that only this claim finds.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` occurs exactly once in `file` of `srvd/core`, and becomes `new`."""

    bug: str
    file: str
    old: str
    new: str
    first: int = 0  # the seed of a walk that has found it: the first that is tried


MUTANTS = (
    Mutant(
        "a reload is done while a former worker may still accept",
        "operations/completion.py",
        "    return part.close_by == -NEVER\n",
        "    return True\n",
    ),
    Mutant(
        "whoever waits for a reload is told that all is well when the daemon is stopped",
        "operations/execute.py",
        "queue.end(state, op, OpState.FAILED, turn, Fault(ErrorCode.SHUTTING_DOWN, reason))",
        'op.result["message"] = "done"\n            queue.end(state, op, OpState.DONE, turn)',
    ),
    Mutant(
        "a stop forgets the trial that is under way",
        "operations/execute.py",
        "        if op.id != state.stop:\n            rollout.abandon(state, op, turn)\n",
        "        if op.id != state.stop:\n",
    ),
    Mutant(
        "a scale is done when those that leave make up the number",
        "operations/completion.py",
        "fresh, old, serving = pool.fresh, pool.old, pool.serving",
        "fresh, old = pool.fresh, pool.old\n"
        "    serving = sum(w.phase in (Phase.SERVING, Phase.DRAINING) for w in pool.workers())",
    ),
    Mutant(
        "a scale that failed leaves its size in force",
        "operations/completion.py",
        "    pool.override = op.before[pool.name]\n",
        "",
    ),
    Mutant(
        "an order joins an identical one although a rival came in between",
        "operations/queue.py",
        "last = rivals[-1] if rivals else None",
        "last = next((op for op in rivals if op.order._replace(busy=()) == order._replace(busy=())), None)",
        first=4,
    ),
    Mutant(
        "a reload joins one that may have read the former code",
        "operations/queue.py",
        "return None if order.kind is Kind.RELOAD and last.state is not OpState.QUEUED else last",
        "return last",
        first=3,
    ),
    Mutant(
        "an order that was refused is carried out",
        "operations/orders.py",
        "        turn.do(Refused(ticket, fault))\n        return\n    turn.busy",
        "        turn.do(Refused(ticket, fault))\n    turn.busy",
    ),
    Mutant(
        "an operation that has ended can be cancelled",
        "operations/execute.py",
        "    if op.state.ended:\n        return Fault(",
        "    if op.state is OpState.CANCELLED:\n        return Fault(",
    ),
    Mutant(
        "a worker is signalled after its death was reported",
        "reports/losses.py",
        "    transitions.remove(generation, worker, WorkerTrigger.EXITED, turn)\n",
        "    transitions.remove(generation, worker, WorkerTrigger.EXITED, turn)\n    turn.do(KillWorker(worker.id))\n",
    ),
    Mutant(
        "a report is taken for that of whoever has the same pid",
        "reports/workers.py",
        "    pool, generation = found\n    match event:\n        case WorkerForked():\n",
        "    pool, generation = found\n"
        "    if worker.pid is not None:\n"
        "        worker = next(w for w in pool.workers() if w.pid == worker.pid)\n"
        "        generation = pool.generations[worker.id.generation]\n"
        "    match event:\n        case WorkerForked():\n",
        first=1,
    ),
    Mutant(
        "a worker that was cancelled before its pid was known is not killed when it is",
        "reports/workers.py",
        "        turn.do(KillWorker(worker.id))\n\n\ndef _refused",
        "\n\ndef _refused",
        first=22,
    ),
    Mutant(
        "the workers that a dead zygote was asked for are waited for",
        "reports/zygotes.py",
        "        if worker.phase in (Phase.ASKED, Phase.CANCELLED):\n            transitions.remove(",
        "        if worker.phase is Phase.CANCELLED:\n            transitions.remove(",
        first=5,
    ),
    Mutant(
        "a zygote that does not fork is left alone",
        "reports/losses.py",
        "    if deaf and generation.zygote is Zygote.UP:\n",
        "    if deaf and generation.zygote is Zygote.LEAVING:\n",
        first=3,
    ),
    Mutant(
        "a death leaves no record",
        "reports/death_records.py",
        "        pool.deaths.append(record)\n",
        "        pass\n",
    ),
    Mutant(
        "a worker that is stuck is killed before its replacement serves",
        "reports/replacement.py",
        "        generation.workers.replace(worker, why)\n",
        "        generation.workers.replace(worker, why)\n"
        "        transitions.kill(generation, worker, ExitReason(why.value), turn)\n",
    ),
    Mutant(
        "a worker that was stopped is never continued",
        "reports/stopped.py",
        "    turn.do(TellWorker(worker.id, WorkerCommand.WAKE))\n",
        "",
        first=3,
    ),
    Mutant(
        "a replacement that is too large at once is replaced at once",
        "reports/replacement.py",
        "    if turn.now < policy.until or is_new:\n",
        "    if turn.now < policy.until - 3600:\n",
        first=1,
    ),
    Mutant(
        "failures are never waited after",
        "backoff.py",
        "    if strikes <= 1:\n",
        "    if strikes >= 0:\n",
        first=2,
    ),
    Mutant(
        "a pool that was crashing is never forgiven",
        "backoff.py",
        "    return backoff.last + FORGIVEN_AFTER if backoff.strikes else NEVER\n",
        "    return NEVER\n",
        first=22,
    ),
    Mutant(
        "old workers leave before their successors confirm that they accept",
        "reconcile.py",
        "confirmed = source.workers.count((Phase.SERVING,), STAYS)",
        "confirmed = pool.fresh",
    ),
    Mutant(
        "a paused pool is filled up again",
        "state/model.py",
        "return 0 if self.paused else spec.workers if",
        "return spec.workers if",
        first=1,
    ),
    Mutant(
        "one pool commits while another still boots",
        "operations/rollout.py",
        "    if waiting and all(part.staged for part in op.rollouts.values()):\n",
        "    if waiting and waiting[0].staged:\n",
    ),
    Mutant(
        "blue-green commits with the canary alone",
        "operations/rollout.py",
        "    return trial.count(Phase.STANDBY) >= (1 if first_start else size)\n",
        "    return trial.count(Phase.STANDBY) >= 1\n",
    ),
    Mutant(
        "a worker that has changed its phase is counted in the former one, too",
        "state/workers.py",
        "        self._leave(worker)\n        worker.phase = phase\n",
        "        worker.phase = phase\n",
    ),
    Mutant(
        "only the pool of the event is looked at when an operation has committed",
        "operations/queue.py",
        "    op.state = OpState.COMMITTING\n    turn.touch(op)\n",
        "    op.state = OpState.COMMITTING\n",
    ),
    Mutant(
        "only the pool of the event is looked at when an operation has ended",
        "operations/queue.py",
        "    state.operations.end(op, end_state, turn.now)\n    turn.touch(op)\n",
        "    state.operations.end(op, end_state, turn.now)\n",
        first=1,
    ),
    Mutant(
        "only the pool of the event is looked at when a queued operation begins",
        "operations/execute.py",
        "    turn.touch(op)\n",
        "",
    ),
    Mutant(
        "a probe that was not passed is not repeated",
        "operations/probing.py",
        "        generation.ask_at = again\n",
        "        pass\n",
        first=28,
    ),
    Mutant(
        "the health probe is left out",
        "operations/probing.py",
        "    if not generation.spec.health:\n",
        "    if generation.spec.workers:\n",
    ),
    Mutant(
        "a failed reload takes one of the former generation with it",
        "operations/rollout.py",
        "        for worker in reversed(trial.workers.latest(STAGED, trial.staged)):\n",
        "        for worker in [] if pool.source is None else pool.source.workers.latest((Phase.SERVING,), 1):\n"
        "            transitions.kill(pool.source, worker, ExitReason.ABANDONED, turn)\n"
        "        for worker in reversed(trial.workers.latest(STAGED, trial.staged)):\n",
    ),
    Mutant(
        "the way back from a bake forgets the workers of the bad generation",
        "operations/rollout.py",
        "    transitions.shift(bad, GenerationTrigger.RETIRE)\n",
        "    transitions.shift(bad, GenerationTrigger.RETIRE)\n    bad.workers.clear()\n",
        first=1,
    ),
    Mutant(
        "a rollback that has committed still counts as parked",
        "operations/rollout.py",
        "        trial, former = pool.generations[rollout.generation], pool.source\n"
        "        if pool.parked == trial.id.number:\n            pool.parked = None\n",
        "        trial, former = pool.generations[rollout.generation], pool.source\n",
    ),
    Mutant(
        "a reload is done as soon as it has committed",
        "operations/completion.py",
        "finished = part.committed and _has_taken_over(state.pools[part.pool], part, turn)",
        "finished = part.committed",
    ),
    Mutant(
        "a recycle is done while those that it is about still serve",
        "operations/completion.py",
        "    if not op.left and all(is_full(pool) for pool in pools):\n",
        "    if all(pool.serving >= pool.target for pool in pools):\n",
        first=2,
    ),
    Mutant(
        "a pool that comes back begins to count anew",
        "operations/execute.py",
        "numbers, serials = state.numbers.pop(spec.name, (0, 0))",
        "numbers, serials = 0, 0",
        first=1,
    ),
    Mutant(
        "a lost zygote is loaded anew only when the queue is empty",
        "settle.py",
        "        and op.state is not OpState.QUEUED\n",
        "",
        first=17,
    ),
    Mutant(
        "a configuration is dropped while a parked generation still uses it",
        "pool_index.py",
        "        used = {revision for revisions in self._used.values() for revision in revisions}\n",
        "        used = served | {pool.trial.revision for pool in state.pools.values() if pool.trial is not None}\n",
    ),
    Mutant(
        "the deadline of a back-off is forgotten",
        "pool_index.py",
        "for until in (pool.backoff.until, source.pace.until) if",
        "for until in (source.pace.until,) if",
        first=1,
    ),
    Mutant(
        "the deadlines of workers are forgotten",
        "state/workers.py",
        "self._deadlines.put(worker.id.serial, min(worker.deadline, worker.wake_at))",
        "self._deadlines.put(worker.id.serial, worker.wake_at)",
    ),
    Mutant(
        "the deadlines of operations are forgotten",
        "supervisor.py",
        "due = min(self._index.deadline, *(op.deadline for op in self.state.open_operations), NEVER)",
        "due = self._index.deadline",
        first=16,
    ),
    Mutant(
        "the deadline of a trial whose forks were refused is forgotten",
        "pool_index.py",
        "for at in (part.retry_at, part.close_by)",
        "for at in (part.close_by,)",
    ),
    Mutant(
        "the end of a bake is forgotten",
        "operations/baking.py",
        "    return NEVER if pool.bake is None else min(pool.bake.until, pool.bake.look_at)\n",
        "    return NEVER\n",
    ),
    Mutant(
        "a zygote that does not fork is waited for by whoever was cancelled",
        "transitions.py",
        "wait(worker, min(asked_until, turn.now + LAST_WORDS) if leaving else asked_until)",
        "wait(worker, NEVER)",
        first=18,
    ),
    Mutant(
        "a repair brings a pool back that a reload has removed",
        "settle.py",
        " and not execute.is_moot(state, op, turn):",
        ":",
        first=634,
    ),
    Mutant(
        "a rollback takes who still serves of that generation for staged",
        "operations/rollout.py",
        "    missing = size - trial.staged\n",
        "    missing = size - sum(worker.is_capacity for worker in trial.workers.values())\n",
        first=161,
    ),
    Mutant(
        "a failed rollback cuts off who still drains",
        "operations/rollout.py",
        "        for worker in reversed(trial.workers.latest(STAGED, trial.staged)):\n            transitions.kill(",
        "        for worker in list(trial.workers.values()):\n            transitions.kill(",
        first=104,
    ),
    Mutant(
        "a program that failed its self-check is run",
        "operations/upgrade.py",
        "    if event.fault is not None:\n        queue.end(state, op, OpState.FAILED, turn, event.fault)\n    elif",
        "    if",
        first=6,
    ),
    Mutant(
        "an upgrade forgets who is waited for",
        "state/codec.py",
        "        return Codec(sorted if inner.dump is _same else",
        "        return Codec((lambda value: []) if inner.dump is _same else",
    ),
    Mutant(
        "an upgrade forgets when a generation has to have loaded",
        "state/codec.py",
        "                values[name] = inner[name].load(item)\n",
        "                values[name] = inner[name].load(item) if item != codec.get('deadline') else float('inf')\n",
    ),
    Mutant(
        "a parked generation whose zygote has died is kept",
        "reports/zygotes.py",
        "    elif generation.id.number == pool.parked:\n",
        "    elif generation.id.number == pool.parked and pool.removed:\n",
        first=7,
    ),
)
