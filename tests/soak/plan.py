"""What will happen, drawn from a seed before anything does: the same seed is the same sequence. Does nothing."""

from __future__ import annotations

import random
from typing import NamedTuple

__all__ = ["KINDS", "Action", "plan"]

KINDS = (
    "kill a worker", "kill the zygote", "reload good", "reload broken", "scale", "recycle", "upgrade",
    "attack the control socket",
)  # fmt: skip


class Action(NamedTuple):
    kind: str
    dice: int  # decides which worker, which size, which attack


def plan(seed: int, count: int, kinds: tuple[str, ...] = KINDS) -> list[Action]:
    """So many actions. The first ones are one of each kind, so that a short run has them all."""
    chance = random.Random(seed)
    first = chance.sample(kinds, len(kinds))
    rest = [chance.choice(kinds) for _ in range(count)]
    return [Action(kind, chance.randrange(1 << 30)) for kind in (first + rest)[:count]]
