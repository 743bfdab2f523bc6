"""What an order came to, in words: which generation serves, instead of which, and what may surprise. Pure.

Decides nothing: whether it has come true is `operations/completion.py`'s.
"""

from __future__ import annotations

from srvd.core.model import Kind
from srvd.core.state.model import Generation, Operation, Pool, SupervisorState

__all__ = ["from_disk", "nobody", "not_probed", "notes", "of_rollouts", "of_scale", "workers"]


def workers(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"


def nobody(pool: Pool) -> str:
    """Says that clients hang: that was ordered, and is seldom expected."""
    return f"{pool.name} serves nobody now; clients wait"


def notes(pool: Pool) -> list[str]:
    """What is worth a sentence in the status although the pool is well."""
    wanted = pool.source is not None and not pool.target and not pool.paused and not pool.removed
    return list(filter(None, (nobody(pool) if wanted else "", pool.taken_back)))


def not_probed(*pools: Pool) -> str:
    """Which of them were put into force without a request, and why; "" for none."""
    unasked = [f"pools.{p.name}.health" for p in pools if p.source is not None and not p.source.spec.health]
    verb = "are" if len(unasked) > 1 else "is"
    return f"not probed: {' and '.join(unasked)} {verb} not set" if unasked else ""


def from_disk(pool: Pool) -> str:
    """Fresh workers of a generation that is not preloaded have whatever code was there when they came."""
    source = pool.source
    preloaded = source is None or source.preloaded
    return "" if preloaded else f"{pool.name} is not preloaded: its new workers have loaded what is on disk"


def of_rollouts(state: SupervisorState, op: Operation) -> str:
    """A start, reload, rollback or repair that is done."""
    pools = [state.pools[name] for name in op.rollouts]
    former = [op.rollouts[pool.name].former for pool in pools]
    kind = op.order.kind
    if kind is Kind.ROLLBACK and any(former):
        said = [_instead(pool, number) for pool, number in zip(pools, former, strict=True)]
    else:
        said = [_who(pools)]
    said += [nobody(pool) for pool in pools if not pool.target and not pool.paused]
    if kind in (Kind.START, Kind.RELOAD):
        said.append(not_probed(*pools))
    if kind is Kind.ROLLBACK:
        said += [from_disk(pool) for pool in pools]
    return "; ".join(filter(None, said))


def of_scale(pool: Pool, before: int | None) -> str:
    """`before`: the override that was in force."""
    if pool.paused:
        return f"{pool.name} is paused; {workers(pool.desired)} will serve"
    if not pool.desired:
        return nobody(pool)
    grown = pool.desired > (pool.spec.workers if before is None else before)
    said = (f"{pool.name} serves with {workers(pool.desired)}", from_disk(pool) if grown else "")
    return "; ".join(filter(None, said))


def _who(pools: list[Pool]) -> str:
    names = [str(pool.source.id) for pool in pools if pool.source is not None]
    serving = sum(pool.target for pool in pools)
    verb = "serve" if len(names) > 1 else "serves"
    return f"{', '.join(names)} {verb} with {workers(serving)}{_overrides(pools)}{_folders(pools)}"


def _instead(pool: Pool, former: int) -> str:
    source = pool.source
    now = "" if source is None else f"{source.id}{_loaded(source)}"
    return f"{now} serves instead of {pool.name}@{former} with {workers(pool.target)}{_overrides([pool])}"


def _folders(pools: list[Pool]) -> str:
    """From where: a link that was switched too late is seen by that."""
    folders = sorted({pool.source.folder for pool in pools if pool.source is not None} - {""})
    return f", loaded from {' and '.join(folders)}" if folders else ""


def _loaded(generation: Generation) -> str:
    where = f" from {generation.folder}" if generation.folder else ""
    return f" (loaded {generation.loaded}{where})" if generation.loaded else ""


def _overrides(pools: list[Pool]) -> str:
    """A size that was ordered holds over reloads, also where the file says another one by now."""
    said = []
    for pool in pools:
        if pool.override not in (None, pool.spec.workers):
            name = f"{pool.name}: " if len(pools) > 1 else ""
            said.append(f"{name}the file says {pool.spec.workers}; `srvctl scale --reset {pool.name}`")
    return f" ({', '.join(said)})" if said else ""
